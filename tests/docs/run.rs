//! Executes the blocks of a document in one shell, with a gateway on separate ports.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::blocks::{Block, Language};
use crate::ports::reserved_port;

/// Ports in the documents: HTTP, admin and MQTT by default, those of a second gateway, and those of SMPP, of an engine and of a proxy.
const NAMED: [&str; 9] = ["4437", "4438", "1883", "5437", "5438", "2883", "2775", "6379", "8080"];

/// Marks the end of a block's output. No document prints it.
const END: &str = "\u{1e}end of block ";

/// Time limit for all blocks of a document, in seconds: a hang detector for a busy machine.
const SECONDS_MAX: &str = "300";

/// What the commands of a reader stand for.
const STAND_INS: &str = include_str!("stand-ins.sh");

/// Replaces the storage of pages, which Node lacks.
const STORAGE: &str = "globalThis.localStorage = {
  getItem(name) { return this[name] ?? null },
  setItem(name, value) { this[name] = value },
}\n";

/// A folder in which the blocks of a document are executed, and its ports.
pub(crate) struct Run {
    folder: TempDir,
    ports: [String; NAMED.len()],
}

impl Run {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let ports = std::array::from_fn(|_| reserved_port().to_string());
        let link = |target: &Path, name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::os::unix::fs::symlink(target, path).expect("a link");
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let gateway = Path::new(env!("CARGO_BIN_EXE_pollgate"));
        link(gateway, "target/release/pollgate");
        link(&gateway.with_file_name("loadtest"), "target/release/loadtest");
        link(&gateway.with_file_name("examples"), "target/release/examples");
        link(&root.join("clients/js"), "node_modules/pollgate");
        link(root, "pollgate");
        link(&root.join("examples"), "examples");
        std::fs::write(folder.path().join("storage.mjs"), STORAGE).expect("a file");
        Self { folder, ports }
    }

    /// Executes all blocks in one shell and returns the output of each. Panics if one fails.
    pub(crate) fn all(&self, blocks: &[Block], gateway_runs: bool) -> Vec<String> {
        let mut script = STAND_INS.to_owned();
        if gateway_runs {
            script.push_str("serve\n");
        }
        for Block { language, code, line, .. } in blocks {
            match language {
                Language::Shell => script.push_str(code),
                Language::JavaScript => {
                    script.push_str(&format!("javascript <<'JAVASCRIPT'\n{code}\nJAVASCRIPT"))
                }
            }
            // A read that does not end is ended by curl itself, with status 28.
            script.push_str(&format!("\nfailed=$?; printf '\\n{END}{line} %s\\n' $failed\n"));
        }
        let script = self.with_own_ports(&script);
        let output = Command::new("timeout")
            .args(["--kill-after=5", SECONDS_MAX, "bash", "-c", &script])
            .current_dir(self.folder.path())
            .env("REPOSITORY", env!("CARGO_MANIFEST_DIR"))
            .env("GATEWAY_UNDER_TEST", env!("CARGO_BIN_EXE_pollgate"))
            .env("LOADTEST_UNDER_TEST", Path::new(env!("CARGO_BIN_EXE_pollgate")).with_file_name("loadtest"))
            .env("POLLGATE_URL", self.with_own_ports("http://127.0.0.1:4437"))
            .env("POLLGATE_LISTEN", self.with_own_ports("127.0.0.1:4437"))
            .env("POLLGATE_ADMIN", self.with_own_ports("127.0.0.1:4438"))
            .env("POLLGATE_MQTT", self.with_own_ports("127.0.0.1:1883"))
            .stdin(Stdio::null())
            .output()
            .expect("timeout, of coreutils");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((printed, behind)) = rest.split_once(END) {
            let (ended, further) = behind.split_once('\n').expect("a line");
            let (line, status) = ended.split_once(' ').expect("a status");
            assert!(
                ["0", "28"].contains(&status),
                "the block at line {line} ended with {status}:\n{printed}\n{log}"
            );
            parts.push(printed.to_owned());
            rest = further;
        }
        assert_eq!(parts.len(), blocks.len(), "not all blocks were run:\n{text}\n{log}");
        parts
    }

    fn with_own_ports(&self, text: &str) -> String {
        // In two steps, since the digits of a documented port may occur in an own port.
        let marks: [String; NAMED.len()] = std::array::from_fn(|index| format!("\u{1}{index}\u{1}"));
        let marked =
            NAMED.iter().zip(&marks).fold(text.to_owned(), |text, (named, mark)| text.replace(named, mark));
        marks.iter().zip(&self.ports).fold(marked, |text, (mark, own)| text.replace(mark, own))
    }
}
