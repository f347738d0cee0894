//! [`Gateway`]: a gateway process, started on free ports, observed through its admin listener, ended by signals.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::client::{Answer, Connection, Request, get};
use super::raw::Raw;
use super::{PATIENCE, until};

/// Options of a gateway, unless the scenario sets them.
const DEFAULTS: [[&str; 2]; 4] = [
    ["--listen", "127.0.0.1:0"],
    ["--admin", "127.0.0.1:0"],
    ["--mqtt", "127.0.0.1:0"],
    ["--store", "memory"],
];

/// A running gateway. A drop kills it, and fails the test if the gateway panicked.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// Address of the MQTT listener.
    pub mqtt: SocketAddr,
    /// The gateway whose edge it is, with `GATEWAY_EDGE`; signals end both.
    parent: Option<Box<Self>>,
    child: Child,
    log: File,
    _stdout: Lines<BufReader<ChildStdout>>,
}

/// Returns the command under test: the one in `GATEWAY_BINARY`, such as a release build, or that of this build.
pub fn program() -> String {
    std::env::var("GATEWAY_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_pollgate").to_owned())
}

/// Returns the command to start with `arguments`: [`program`], or the one in `GATEWAY_BEFORE`, an earlier version, for a gateway
/// beside another one, which has the name `other`.
fn program_for(arguments: &[&str]) -> String {
    let is_other = arguments.windows(2).any(|pair| pair == ["--gateway-name", "other"]);
    std::env::var("GATEWAY_BEFORE").ok().filter(|_| is_other).unwrap_or_else(program)
}

/// Whether clients reach the gateway through an edge: with `GATEWAY_EDGE`, except where the scenario is about tokens, certificates or
/// an edge of its own.
fn is_behind_edge(arguments: &[&str]) -> bool {
    let own = ["--auth", "--tls-certificate", "--upstream"];
    std::env::var_os("GATEWAY_EDGE").is_some() && !arguments.iter().any(|argument| own.contains(argument))
}

/// Whether the command under test is an optimized build.
pub fn is_release_build() -> bool {
    std::env::var_os("GATEWAY_BINARY").is_some() || !cfg!(debug_assertions)
}

impl Gateway {
    /// Starts a gateway with additional arguments and waits until it listens.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    /// Like [`Self::start`], with environment variables.
    pub async fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        if is_behind_edge(arguments) {
            return Self::start_behind_edge(arguments, variables).await;
        }
        Self::start_alone(arguments, variables).await
    }

    async fn start_alone(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let started = Self::try_start(&[], arguments, variables).await;
        started.unwrap_or_else(|status| panic!("the gateway ended before it listened: {status}"))
    }

    /// Starts a gateway and an edge of it, which clients use. The store is that of the first.
    async fn start_behind_edge(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let parent = Self::start_alone(arguments, variables).await;
        let upstream = format!("http://{}", parent.address);
        let mut of_edge = vec!["--upstream", &upstream];
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            match *option {
                "--store" | "--sync" => drop(rest.next()),
                option => of_edge.push(option),
            }
        }
        let mut edge = Self::start_alone(&of_edge, variables).await;
        edge.parent = Some(Box::new(parent));
        edge
    }

    /// Starts a gateway through a command that runs it, such as strace; an error if it ends before it listens.
    pub async fn start_under(command: &[String], arguments: &[&str]) -> Result<Self, ExitStatus> {
        Self::try_start(command, arguments, &[]).await
    }

    async fn try_start(
        command: &[String],
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self, ExitStatus> {
        let log = unnamed_file();
        let program = program_for(arguments);
        let command = command.iter().map(String::as_str).chain([program.as_str()]);
        let command: Vec<_> = command.collect();
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .args(DEFAULTS.iter().filter(|[option, _]| !arguments.contains(option)).flatten())
            .args(arguments)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().expect("a descriptor"))
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", command[0]));
        let stdout = child.stdout.take().expect("its output is piped");
        let mut stdout = BufReader::new(stdout).lines();
        let mut address_behind = async |prefix: &str| {
            let line = timeout(PATIENCE, stdout.next_line()).await.expect("it listens in time");
            let line = line.expect("readable")?;
            let line = line.strip_prefix(prefix).expect(prefix);
            let address = line.rsplit_once("//").map_or(line, |(_, address)| address);
            Some(address.parse().expect("an address"))
        };
        let address = address_behind("listening ").await;
        let admin = address_behind("admin ").await;
        let mqtt = address_behind("mqtt ").await;
        let (Some(address), Some(admin), Some(mqtt)) = (address, admin, mqtt) else {
            eprint!("{}", written(&log));
            return Err(timeout(PATIENCE, child.wait())
                .await
                .expect("it ends in time")
                .expect("it had started"));
        };
        Ok(Self { address, admin, mqtt, parent: None, child, log, _stdout: stdout })
    }

    /// Returns its log until now.
    pub fn log(&self) -> String {
        written(&self.log)
    }

    /// Opens a connection to it.
    pub async fn connect(&self) -> Connection {
        Connection::open(self.address).await
    }

    /// Sends one request on a new connection.
    pub async fn send(&self, request: Request) -> Answer {
        self.connect().await.send(request).await
    }

    /// Opens a connection for arbitrary bytes.
    pub async fn connect_raw(&self) -> Raw {
        Raw::open(self.address).await
    }

    /// Sends a GET to the admin listener.
    pub async fn ask_admin(&self, path: &str) -> Answer {
        Connection::open(self.admin).await.send(get(path)).await
    }

    /// Returns the value of a metric, given with its labels; 0 if it does not exist.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.ask_admin("/metrics").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// Returns the longest wall-clock time for which one of its tasks blocked a worker thread; 0 if always below 10 ms.
    pub async fn longest_stall(&self) -> Duration {
        Duration::from_secs_f64(self.metric("pollgate_stall_longest_seconds").await)
    }

    /// Waits until it holds `polls` polls.
    pub async fn until_held(&self, polls: usize) {
        let what = format!("{polls} held polls");
        until(&what, async || self.metric("pollgate_held_polls").await as usize == polls).await;
    }

    /// Waits until `tasks` tasks sleep on streams: held polls and idle live readers.
    pub async fn until_waiting(&self, tasks: usize) {
        let what = format!("{tasks} waiters");
        until(&what, async || self.metric("pollgate_waiters").await as usize == tasks).await;
    }

    /// Waits until `clients` MQTT clients are connected.
    pub async fn until_mqtt_clients(&self, clients: usize) {
        let what = format!("{clients} MQTT clients");
        until(&what, async || self.metric("pollgate_mqtt_connections").await as usize == clients).await;
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends it a signal: `HUP`, `STOP`, `CONT`, `TERM` or `KILL`. See [`send_signal`].
    pub fn signal(&self, name: &str) {
        let signal = match name {
            "HUP" => Signal::HUP,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            "TERM" => Signal::TERM,
            "KILL" => Signal::KILL,
            _ => panic!("{name} is no signal that a scenario sends"),
        };
        send_signal(self.id(), signal);
        if let Some(parent) = &self.parent {
            parent.signal(name);
        }
    }

    /// Kills it and waits until it has ended, so that another one can use its store.
    pub async fn kill(mut self) {
        self.signal("KILL");
        self.ended(PATIENCE).await;
    }

    /// Waits until it ends.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        if let Some(parent) = &mut self.parent {
            Box::pin(parent.ended(within)).await;
        }
        timeout(within, self.child.wait()).await.expect("it ends in time").expect("it had started")
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it had started").is_some()
    }

    /// Returns the CPU time of its threads.
    pub fn processor_time(&self) -> Duration {
        self.schedstat(0).sum()
    }

    /// Returns the longest time that one of its threads was ready to run without a processor.
    pub fn longest_wait_for_a_processor(&self) -> Duration {
        self.schedstat(1).max().expect("a thread")
    }

    /// Returns one value of each thread: 0 is its CPU time, 1 its time on a run queue (proc(5), schedstat).
    fn schedstat(&self, column: usize) -> impl Iterator<Item = Duration> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("its threads");
        threads.filter_map(move |thread| {
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            Some(Duration::from_nanos(text.split(' ').nth(column)?.trim().parse().ok()?))
        })
    }

    /// Returns the anonymous memory of the process in bytes (proc(5), smaps_rollup). Pages of the program file do not count:
    /// they are loaded when its code first runs.
    pub fn memory_bytes(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.id());
        let text = std::fs::read_to_string(path).expect("smaps_rollup");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).expect("Pss_Anon");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }
}

/// Sends a child of this process a signal. If it is `STOP`, returns once the child is stopped: until one of its threads runs and takes
/// the signal, its other threads go on.
pub fn send_signal(child: u32, signal: Signal) {
    let id = Pid::from_raw(child as i32).expect("a process id");
    kill_process(id, signal).expect("it runs");
    if signal == Signal::STOP {
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(id), stopped).expect("a child");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let log = written(&self.log);
        eprint!("{log}");
        assert!(std::thread::panicking() || !log.contains("panicked"), "the gateway panicked");
    }
}

/// Returns the gateway's standard error until now.
fn written(log: &File) -> String {
    let mut text = vec![0; log.metadata().expect("a size").len() as usize];
    log.read_exact_at(&mut text, 0).expect("readable");
    String::from_utf8_lossy(&text).into_owned()
}

/// Creates a file that is removed when it is closed. The gateway appends to it, so that reads do not move its position.
fn unnamed_file() -> File {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{}-{}.log", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let file = File::options().read(true).append(true).create_new(true).open(&path).expect("a new file");
    std::fs::remove_file(&path).expect("our file");
    file
}
