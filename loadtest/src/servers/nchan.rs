//! nginx with nchan: Debian's `nginx` and `libnginx-mod-nchan`, with messages in its shared memory.

use std::net::SocketAddr;
use std::path::Path;

use tokio::time::{sleep, timeout};

use super::certificate::Certificate;
use super::process::{ASK_AGAIN, Process, START_TIMEOUT, first_line};
use super::scratch::{Scratch, free_address};
use super::{Running, ServerError, Storage};
use crate::dialects::Dialect;
use crate::strategies::Strategy;
use crate::streams;
use crate::target::Target;
use crate::wire::Transport;

/// Number of nginx's worker processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// A single one.
    One,
    /// As many as there are processors.
    PerProcessor,
}

impl Workers {
    /// Name on the command line and in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::One => NAME,
            Self::PerProcessor => "nchan-workers",
        }
    }

    /// Value of `worker_processes`.
    fn setting(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::PerProcessor => "auto",
        }
    }
}

const NAME: &str = "nchan";

const PROGRAM: &str = "/usr/sbin/nginx";
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

const TEMPLATE: &str = include_str!("nchan.conf");

/// Checks that nginx and the module are installed.
pub(super) fn installed() -> Result<(), ServerError> {
    let missing = || ServerError::Missing(NAME.into(), "apt-get install nginx libnginx-mod-nchan".into());
    [PROGRAM, MODULE].iter().all(|path| Path::new(path).is_file()).then_some(()).ok_or_else(missing)
}

/// Returns nginx's version; the module reports none.
pub(super) fn version() -> Option<String> {
    first_line(Path::new(PROGRAM), &["-v"])
}

/// Starts it with the strategy's hold.
pub(super) async fn start(
    workers: Workers,
    over: Transport,
    strategy: Strategy,
    storage: &Storage,
) -> Result<Running, ServerError> {
    installed()?;
    let address = free_address()?;
    let scratch = Scratch::new(NAME)?;
    let hold = if let Strategy::LongPoll(hold) = strategy { hold.as_secs() } else { 0 };
    let certificate = if over.has_tls() { Some(Certificate::new()?) } else { None };
    let listening = listening(over, certificate.as_ref());
    let text = settings(workers, address, hold, &scratch.path().display().to_string(), storage);
    let file = scratch.write("nginx.conf", &text.replace("LISTENING", &listening))?;
    let arguments = ["-e", "stderr", "-c", &file].map(str::to_owned);
    let mut process = Process::start(Path::new(PROGRAM), &arguments)?;
    process.listens(address).await?;
    let der = certificate.as_ref().map(|certificate| certificate.der.clone()).unwrap_or_default();
    let target = Target { transport: over, certificate: der, ..Target::of(address, Dialect::Nchan) };
    // It listens before it has connected to Redis, and answers 503 until then.
    let serves = async {
        while streams::create(&target, 0, 1, None).await.is_err() {
            sleep(ASK_AGAIN).await
        }
    };
    timeout(START_TIMEOUT, serves).await.map_err(|_| ServerError::Mute(NAME.into()))?;
    let running = Running::of(target, Some(process));
    Ok(Running { _scratch: Some(scratch), _certificate: certificate, ..running })
}

/// Returns the options of `listen`, and the certificate.
fn listening(over: Transport, certificate: Option<&Certificate>) -> String {
    let http2 = if over.is_http2() { " http2" } else { "" };
    match certificate {
        Some(Certificate { certificate, key, .. }) => {
            format!(" ssl{http2}; ssl_certificate {certificate}; ssl_certificate_key {key}")
        }
        None => http2.to_owned(),
    }
}

/// Fills the configuration with the locations that `dialects::nchan` uses.
fn settings(workers: Workers, address: SocketAddr, hold: u64, folder: &str, storage: &Storage) -> String {
    let redis = if let Storage::Engine(url, _) = storage {
        format!("nchan_redis_url \"{url}\"; nchan_use_redis on;")
    } else {
        String::new()
    };
    let values = [("WORKERS", workers.setting()), ("MODULE", MODULE), ("FOLDER", folder), ("REDIS", &redis)];
    let filled = values.iter().fold(TEMPLATE.to_owned(), |text, (word, value)| text.replace(word, value));
    filled.replace("HOLD", &hold.to_string()).replace("ADDRESS", &address.to_string())
}
