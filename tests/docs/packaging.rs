//! The files of packaging/: the manifests of Kubernetes against the schemas of its API, and the command lines of all containers, which
//! run as they are. Requires what `tests/run docs` installs.

use std::path::PathBuf;
use std::process::Command;

use crate::root;

/// A program of the Python environment that `tests/run docs` makes.
fn of_python(program: &str) -> PathBuf {
    root().join("tests/docs/.venv/bin").join(program)
}

fn passes(command: &mut Command) {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run docs installs it"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_manifests_of_kubernetes_have_no_unknown_field() {
    let manifests = ["kubernetes.yaml", "ingress.yaml"].map(|name| root().join("packaging").join(name));
    passes(Command::new(of_python("kubernetes-validate")).arg("--strict").args(manifests));
}

#[test]
fn the_command_lines_of_the_containers_serve_clients() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut run = Command::new("unshare");
    run.args(["--net", "--mount"]).arg(of_python("python")).arg(root().join("tests/docs/packaging.py"));
    passes(run.arg(root()).arg(env!("CARGO_BIN_EXE_pollgate")).arg(folder.path()));
}
