//! Runs the command as users do, and reads its output.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses its part of the world")]

#[path = "../../../tests/world/stopwatch.rs"]
mod stopwatch;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use loadtest::data::Report;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

pub(crate) use stopwatch::{Stopwatch, on_time};

/// A call of the command, with a folder of its own for the report.
pub(crate) struct Loadtest {
    pub(crate) folder: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
}

/// The result of a call.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// Its output, followed by its errors.
    pub(crate) said: String,
    folder: PathBuf,
}

impl Loadtest {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let mut command = Self::new_without_output(arguments);
        command.arguments.extend(["--output".to_owned(), command.folder.display().to_string()]);
        command
    }

    /// Creates a call that writes no report.
    pub(crate) fn new_without_output(arguments: &[&str]) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { folder, program: env!("CARGO_BIN_EXE_loadtest").into(), arguments }
    }

    /// Uses the build that `LOADTEST_BINARY` names.
    pub(crate) fn built_for_users(self) -> Self {
        let program = std::env::var_os("LOADTEST_BINARY").expect("LOADTEST_BINARY").into();
        Self { program, ..self }
    }

    /// Starts the command.
    pub(crate) fn spawn(&self) -> Child {
        Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Runs the command to its end.
    pub(crate) async fn run(&self) -> Ended {
        self.ended(self.spawn().wait_with_output().await.unwrap())
    }

    pub(crate) fn ended(&self, output: Output) -> Ended {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let said = text(output.stdout) + &text(output.stderr);
        eprint!("{said}");
        Ended { code: output.status.code(), said, folder: self.folder.clone() }
    }
}

impl Ended {
    /// Reads the HTML page of this name.
    pub(crate) fn page(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name).with_extension("html")).expect("a page")
    }

    /// Reads the JSON figures of this name.
    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        let text = std::fs::read(self.folder.join(name).with_extension("json")).expect("figures");
        serde_json::from_slice(&text).expect("JSON")
    }

    pub(crate) fn report(&self) -> Report {
        let text = std::fs::read(self.folder.join("report.json")).expect("a report");
        serde_json::from_slice(&text).expect("a report of this format")
    }
}

/// Loads that run at the same time, if they only count. Most of their time is that of clocks.
const AT_ONCE: u32 = 3;

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE as usize);

/// Waits until no other load runs in this process: two loads would disturb each other's figures.
pub(crate) async fn alone() -> SemaphorePermit<'static> {
    PLACES.acquire_many(AT_ONCE).await.unwrap()
}

/// Waits until there is room for a load whose figures do not depend on what runs beside it, such as one of which every message has
/// to arrive.
pub(crate) async fn beside_others() -> SemaphorePermit<'static> {
    PLACES.acquire().await.unwrap()
}
