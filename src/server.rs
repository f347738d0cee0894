//! The server: binds the listeners, opens the store, starts the tasks that serve, and drains them.

mod accept;
mod authorization;
mod client_certificates;
mod connection;
mod error;
mod listeners;
mod logs;
mod outbound;
mod proxies;
mod store;
mod tls;
mod tls_files;
mod traces;
mod wakes;
mod xmpp;

use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::rustls::ServerConfig;

use crate::auth::{AdminToken, AuthSettings, Authenticator};
use crate::budget::{AppendRate, Bounds, Budget, half_of_machine};
use crate::clock::Clock;
use crate::config::{MemorySize, MqttAddress, MqttRefused, Settings, StorePlace};
use crate::http::api::admin::Admin;
use crate::http::conn::{Phase, Service};
use crate::http::{AccessPolicy, BoshService, Gateway, HoldPolicy, RevocationLog, TrustedProxies};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::{Metrics, stall_timed};
use crate::mqtt::Broker;
use crate::outbound::wake::WakeSender;
use crate::store::{ClockFile, UpstreamOptions};
use crate::stream::{Filter, Store};
use crate::xmpp::{BoshFront, ComponentSettings};
use accept::Acceptor;
use connection::Front;
use listeners::listen;
use logs::Logs;
use outbound::Outbound;
use store::{OpenStore, behind_upstream, keep_clock, upstream_options};
use tls::Certificates;
use wakes::WakeApps;
use xmpp::{BoshDoor, client_front, component_settings, start_component};

pub use error::BindError;
pub use listeners::Inherited;

/// A future whose code is compiled with this crate. That of an `async fn` is compiled, with all that it awaits and spawns, once more in
/// each program that awaits it: the whole gateway, which takes minutes.
pub type Compiled<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A server with bound addresses and an open store that does not serve yet.
pub struct Server {
    gateway: TcpListener,
    admin: TcpListener,
    mqtt: Option<(TcpListener, SocketAddr)>,
    gateway_address: SocketAddr,
    admin_address: SocketAddr,
    store: OpenStore,
    /// The gateway whose streams this one serves.
    upstream: Option<UpstreamOptions>,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// The process has other things in its memory than this server.
    is_simulated: bool,
    /// Keeps the clock of a store on disk across restarts.
    clock_file: Option<ClockFile>,
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    holds: HoldPolicy,
    drain: Duration,
    access: AccessPolicy,
    auth: Arc<Authenticator>,
    certificates: Option<(Arc<Certificates>, Arc<ServerConfig>, Arc<ServerConfig>)>,
    /// Clients are asked for certificates.
    identifies_clients: bool,
    /// The proxies in front of the gateway. `None`: there are none.
    proxies: Option<Arc<TrustedProxies>>,
    /// Proxies begin each connection with the PROXY protocol.
    proxy_protocol: bool,
    admin_access: AccessPolicy,
    outbound: Outbound,
    logs: Logs,
    admin_token: Option<AdminToken>,
    closes_on_refused: bool,
    refused_filters: Vec<Filter>,
    wake_apps: WakeApps,
    component: Option<ComponentSettings>,
    /// Domain of the XMPP clients that connect to the gateway itself.
    xmpp_domain: Option<String>,
}

/// A server that runs until it is drained or dropped.
pub struct Running {
    hub: Arc<Hub>,
    mqtt: Arc<Broker>,
    store: Arc<dyn Store>,
    /// Time from the signal to the hard stop.
    drain: Duration,
    phase: watch::Sender<Phase>,
    tasks: Vec<JoinHandle<()>>,
    /// Connections that the HTTP listener did not accept.
    handed: mpsc::Sender<(TcpStream, SocketAddr)>,
    /// The task of the XMPP component, which ends by itself in a drain.
    component: Mutex<Option<JoinHandle<()>>>,
    logs: Logs,
    /// Notified when an operator asks for a drain.
    drain_request: Arc<Notify>,
}

/// WebSockets that wait for the MQTT front; further ones wait in their HTTP connections.
const SUBPROTOCOL_SOCKETS_MAX: usize = 64;

/// Connections that were handed over and wait for the acceptor; further ones wait in [`Running::serve`].
const HANDED_MAX: usize = 64;

/// How often connections are told whether memory is critical, while it is short.
const SHEDDING_INTERVAL: Duration = Duration::from_secs(1);

impl Server {
    /// Binds the addresses and opens the store.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        Self::bind_with(settings, Inherited::default(), None)
    }

    /// Like [`bind`](Self::bind), but serves on listeners that a service manager has opened. The settings are checked with the addresses of these
    /// listeners: an address that other machines can reach needs authorization and TLS, or `open`.
    pub fn bind_inherited(settings: &Settings, inherited: Inherited) -> Result<Self, BindError> {
        let [gateway, admin, mqtt] = inherited.addresses().map_err(BindError::Inherited)?;
        let settings = Settings {
            listen: gateway.unwrap_or(settings.listen),
            admin: admin.unwrap_or(settings.admin),
            mqtt: mqtt.map_or(settings.mqtt, MqttAddress::At),
            ..settings.clone()
        };
        settings.check()?;
        Self::bind_with(&settings, inherited, None)
    }

    /// Like [`bind`](Self::bind), for a simulation with a clock that follows tokio's (`Clock::of_tokio`). If tokio's clock is
    /// paused, a day passes as fast as its events can be computed.
    #[doc(hidden)]
    pub fn bind_simulated(settings: &Settings, clock: Clock) -> Result<Self, BindError> {
        Self::bind_with(settings, Inherited::default(), Some(clock))
    }

    /// Replaces the store of the settings, for a simulation in which the store fails.
    #[doc(hidden)]
    pub fn over(self, store: Arc<dyn Store>) -> Self {
        Self { store: OpenStore::Local(store), ..self }
    }

    fn bind_with(
        settings: &Settings,
        inherited: Inherited,
        simulated: Option<Clock>,
    ) -> Result<Self, BindError> {
        let access = AccessPolicy::new(settings.listen.ip(), &settings.host, &settings.origin)?;
        let access = access.encrypted(settings.is_encrypted());
        // Pages that may use the gateway must not read what only operators may see.
        let admin_access = AccessPolicy::new(settings.admin.ip(), &settings.host, &[])?;
        let auth = match &settings.auth {
            Some(path) => AuthSettings::read(path)?,
            None => AuthSettings::default(),
        };
        let quotas = authorization::quotas(&auth.tenant)?;
        let tenants = auth.tenants();
        let auth = Authenticator::new(&auth)?.with_limits(&settings.limits);
        let certificates = match Certificates::read(settings)? {
            Some(certificates) => {
                authorization::revoke_certificates(&auth, Some(&certificates))?;
                let (http, mqtt) = certificates.configs()?;
                Some((certificates, http, mqtt))
            }
            None => None,
        };
        let proxies = TrustedProxies::new(&settings.behind_proxy)?;
        let clock_file = match &settings.store {
            StorePlace::Directory(directory) => Some(ClockFile::read(directory)),
            StorePlace::Memory | StorePlace::Engine(_) => None,
        };
        let clock = || clock_file.as_ref().map_or_else(Clock::start, ClockFile::clock);
        let clock = simulated.unwrap_or_else(clock);
        let metrics = Arc::new(authorization::metrics(&auth, &tenants, &settings.limits));
        let limits = Arc::new(settings.limits.clone());
        let bounds = Bounds {
            memory_max: settings.memory_max.map_or_else(half_of_machine, MemorySize::bytes),
            streams_max: limits.streams_max,
            share_percent: limits.principal_share_percent,
        };
        let (appends, bytes) = (limits.appends_per_second_max, limits.append_bytes_per_second_max);
        let budget = Budget::with_quotas(bounds, AppendRate::new(appends, bytes), quotas);
        let filter = |text: &String| {
            Filter::of_topics(text).map_err(|invalid| BindError::Filter(text.clone(), invalid))
        };
        let refused_filters = settings.mqtt_refuse_filter.iter().map(filter).collect::<Result<_, _>>()?;
        let (gateway, gateway_address) = listen("listen", settings.listen, inherited.gateway, &limits)?;
        let (admin, admin_address) = listen("admin", settings.admin, inherited.admin, &limits)?;
        let mqtt = match settings.mqtt {
            MqttAddress::Off => None,
            MqttAddress::At(address) => Some(listen("mqtt", address, inherited.mqtt, &limits)?),
        };
        let wake_apps = WakeApps::read(&settings.wake)?;
        let logs = Logs::open(settings, &metrics)?;
        let admin_token = settings.admin_token_file.as_deref().map(AdminToken::read).transpose();
        let admin_token = admin_token.map_err(BindError::AdminToken)?;
        Ok(Self {
            gateway_address,
            admin_address,
            gateway,
            admin,
            mqtt,
            store: OpenStore::open(settings, &metrics, &budget, clock, gateway_address)?,
            upstream: upstream_options(settings),
            // The store makes its directory.
            outbound: Outbound::read(settings, gateway_address, simulated.is_some())?,
            budget,
            metrics,
            clock,
            is_simulated: simulated.is_some(),
            clock_file,
            limits,
            holds: HoldPolicy { default: settings.hold.get(), max: settings.hold_max.get() },
            drain: settings.drain.get(),
            access,
            auth: Arc::new(auth),
            certificates,
            identifies_clients: settings.tls_client_ca.is_some(),
            proxies: (!settings.behind_proxy.is_empty()).then(|| Arc::new(proxies)),
            proxy_protocol: settings.proxy_protocol,
            admin_access,
            logs,
            admin_token,
            closes_on_refused: settings.mqtt_refused == MqttRefused::Close,
            refused_filters,
            wake_apps,
            component: component_settings(settings)?,
            xmpp_domain: settings.xmpp_domain.clone(),
        })
    }

    /// Address of the HTTP listener for publishers and readers.
    pub fn gateway_address(&self) -> SocketAddr {
        self.gateway_address
    }

    /// Address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Memory budget in bytes.
    pub fn memory_max(&self) -> u64 {
        self.budget.max()
    }

    /// Address of the MQTT listener, if there is one.
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.mqtt.as_ref().map(|(_, address)| *address)
    }

    /// Reads the stored revocations of tokens, and starts to serve in tasks of the current tokio runtime.
    pub fn start(self) -> Compiled<'static, Result<Running, BindError>> {
        Box::pin(self.start_tasks())
    }

    async fn start_tasks(self) -> Result<Running, BindError> {
        let (clock, metrics) = (self.clock, self.metrics);
        let store = self.store.ready().await?;
        let store = behind_upstream(self.upstream.as_ref(), store, &metrics, &self.budget)?;
        let hub = Hub::new(store.clone(), self.limits.clone(), metrics.clone(), clock);
        let hub = Arc::new(hub.within(self.budget.clone()).recording(self.outbound.traces()));
        hub.devices().offer(self.wake_apps.policies);
        hub.load_devices().await?;
        // Before any client is served: what was revoked must not be accepted again.
        let revocations = RevocationLog::open(hub.clone(), self.auth.clone(), clock).await?;
        let broker = Broker::new(hub.clone(), self.limits.clone(), &metrics, clock);
        let broker = broker.closing_on_refused(self.closes_on_refused).refusing_filters(self.refused_filters);
        let broker = Arc::new(broker.with_auth(self.auth.clone()).auditing(self.logs.audit.clone()));
        broker.load().await?;
        let client = self.outbound.client();
        let outbound = self.outbound.start(&hub, &self.limits, clock, &metrics).await?;
        let (sender, mqtt_sockets) = mpsc::channel(SUBPROTOCOL_SOCKETS_MAX);
        let (xmpp_sender, xmpp_sockets) = mpsc::channel(SUBPROTOCOL_SOCKETS_MAX);
        let audit_log = self.logs.audit.clone();
        let xmpp = client_front(
            self.xmpp_domain,
            &hub,
            &self.limits,
            &metrics,
            clock,
            &self.auth,
            audit_log.clone(),
        )?;
        let bosh = xmpp.clone().map(|clients| Arc::new(BoshFront::new(clients)));
        if let Some(bosh) = &bosh {
            bosh.load().await?;
        }
        let bosh_door = bosh.clone().map(|bosh| Arc::new(BoshDoor(bosh)) as Arc<dyn BoshService>);
        let gateway = Gateway::new(
            hub.clone(),
            self.limits.clone(),
            self.holds,
            metrics.clone(),
            clock,
            self.access,
            sender,
        )
        .logging_access(self.logs.access.clone())
        .auditing(self.logs.audit.clone())
        .with_auth(self.auth.clone())
        .handing_xmpp(xmpp.as_ref().map(|_| xmpp_sender))
        .with_bosh(bosh_door)
        .with_subscriptions(outbound.subscriptions)
        .filling_from(outbound.origins);
        let drain_request = Arc::<Notify>::default();
        let admin = Admin::new(hub.clone(), store.clone(), metrics.clone(), clock, self.admin_access)
            .revoking(revocations)
            .requiring(self.admin_token)
            .draining_by(drain_request.clone())
            .auditing(self.logs.audit.clone());
        let (phase, phase_receiver) = watch::channel(Phase::Serving);
        let (certificates, http_tls, mqtt_tls) = match self.certificates {
            Some((certificates, http, mqtt)) => (Some(certificates), Some(http), Some(mqtt)),
            None => (None, None, None),
        };
        let (handed_sender, handed) = mpsc::channel(HANDED_MAX);
        let acceptor = |front, tls, connections_max, proxies, listener, handed| {
            let (limits, metrics, phase) = (self.limits.clone(), metrics.clone(), phase_receiver.clone());
            let budget = self.budget.clone();
            let acceptor = Acceptor::new(front, tls, connections_max, limits, metrics, budget, phase);
            let acceptor = acceptor.behind(proxies, self.proxy_protocol);
            let acceptor = acceptor.identifying_clients(self.identifies_clients);
            tokio::spawn(stall_timed(|| "accepting connections", Box::pin(acceptor.run(listener, handed))))
        };
        let wakes_per_second = self.limits.wakes_per_second_max;
        let wakes = WakeSender::new(hub.clone(), clock, wakes_per_second, self.wake_apps.sending, client);
        let component =
            start_component(self.component, &hub, &self.limits, &metrics, clock, &self.auth, audit_log)
                .await?;
        let (sweeper, mqtt_sweeper, budget) = (hub.clone(), broker.clone(), self.budget.clone());
        let mut tasks = outbound.tasks;
        tasks.extend([
            acceptor(
                Front::Http(Arc::new(Service::Gateway(Arc::new(gateway)))),
                http_tls.clone(),
                self.limits.connections_max,
                self.proxies.clone(),
                self.gateway,
                Some(handed),
            ),
            acceptor(
                Front::Http(Arc::new(Service::Admin(Box::new(admin)))),
                http_tls.filter(|_| !self.admin_address.ip().is_loopback()),
                self.limits.admin_connections_max,
                None,
                self.admin,
                None,
            ),
            tokio::spawn(stall_timed(
                || "the sweep of streams",
                Box::pin(async move { sweeper.sweep().await }),
            )),
            tokio::spawn(stall_timed(
                || "the sweep of MQTT sessions",
                Box::pin(async move { mqtt_sweeper.sweep().await }),
            )),
            tokio::spawn(authorization::watch_keys(self.auth.clone(), certificates, clock)),
            tokio::spawn(self.logs.clone().summarize(clock)),
            tokio::spawn(authorization::fetch_keys(self.auth.clone(), metrics.clone())),
            tokio::spawn(authorization::end_unauthorized_polls(self.auth.clone(), hub.clone())),
            tokio::spawn(authorization::remove_revoked_devices(self.auth.clone(), hub.clone())),
            tokio::spawn(wakes.run()),
            tokio::spawn(connection::serve_sockets(broker.clone(), self.limits.clone(), mqtt_sockets)),
        ]);
        if let Some(front) = xmpp {
            front.load().await?;
            let sweeper = front.clone();
            tasks.push(tokio::spawn(async move { sweeper.sweep().await }));
            tasks.push(tokio::spawn(connection::serve_xmpp_sockets(front, xmpp_sockets)));
        }
        tasks.extend(
            bosh.map(|bosh| tokio::spawn(stall_timed(|| "the check of BOSH sessions", Box::pin(bosh.run())))),
        );
        tasks.extend(self.clock_file.map(|file| tokio::spawn(keep_clock(file, clock))));
        if let Some((listener, _)) = self.mqtt {
            let connections_max = self.limits.connections_max;
            tasks.push(acceptor(
                Front::Mqtt(broker.clone()),
                mqtt_tls,
                connections_max,
                self.proxies,
                listener,
                None,
            ));
        }
        if !self.is_simulated {
            tasks.push(tokio::spawn(async move { budget.watch().await }));
            tasks.push(tokio::spawn(shed_clients(phase.clone(), hub.clone(), self.budget)));
        }
        drop(phase_receiver);
        let component = Mutex::new(component);
        Ok(Running {
            hub,
            mqtt: broker,
            store,
            drain: self.drain,
            phase,
            tasks,
            handed: handed_sender,
            component,
            logs: self.logs,
            drain_request,
        })
    }
}

impl Running {
    /// Serves a connection that something else than the HTTP listener has accepted, such as a pair of sockets in a simulation. It
    /// counts against the same limits as the listener's. `peer` is the address of the client. A server that drains closes it.
    pub async fn serve(&self, connection: TcpStream, peer: SocketAddr) {
        // After the acceptor has ended, the connection is closed by its drop.
        let _closed = self.handed.send((connection, peer)).await;
    }

    /// Waits until an operator asks for a drain at the admin listener.
    ///
    /// Cancel safe.
    pub async fn drain_requested(&self) {
        self.drain_request.notified().await;
    }

    /// Drains the server and closes the store; clients lose nothing that they cannot request again. `/ready` answers 503 at
    /// once, held polls and live forms end with their offsets over `drain_spread`, then connections close. Connections that are
    /// left at the hard stop are dropped.
    pub fn drain(&self) -> Compiled<'_, ()> {
        Box::pin(self.drain_until_hard_stop())
    }

    async fn drain_until_hard_stop(&self) {
        let hard_stop = Instant::now() + self.drain;
        if timeout_at(hard_stop, self.hub.drain()).await.is_ok() {
            self.phase.send_replace(Phase::Closing);
            let _all_closed = timeout_at(hard_stop, self.phase.closed()).await;
        }
        let component = self.component.lock().take();
        if let Some(mut component) = component
            && timeout_at(hard_stop, &mut component).await.is_err()
        {
            component.abort();
        }
        self.phase.send_replace(Phase::Stopped);
        self.mqtt.stop();
        self.store.close().await;
        traces::stop(&self.hub, hard_stop).await;
        let logs = self.logs.clone();
        // A file that blocks does not delay the end for longer than clients may.
        let _closed = timeout_at(hard_stop, spawn_blocking(move || logs.close())).await;
    }

    /// Opens the files of the access log and of the audit log again, which were renamed.
    pub fn reopen_logs(&self) {
        self.logs.reopen();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stopped);
        self.mqtt.stop();
        for task in self.tasks.iter().chain(self.component.lock().as_ref()) {
            task.abort();
        }
    }
}

/// While memory is critical, tells connections, and answers held polls early. Runs until the task is aborted.
async fn shed_clients(phase: watch::Sender<Phase>, hub: Arc<Hub>, budget: Arc<Budget>) {
    loop {
        if *phase.borrow() != Phase::Shedding {
            budget.until_short().await;
        }
        sleep(SHEDDING_INTERVAL).await;
        hub.answer_idle_polls_if_memory_is_critical();
        let next = if budget.is_critical() { Phase::Shedding } else { Phase::Serving };
        phase.send_if_modified(|phase| *phase < Phase::Closing && std::mem::replace(phase, next) != next);
    }
}
