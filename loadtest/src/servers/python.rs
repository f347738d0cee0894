//! Programs that come as packages of PyPI, which `rivals/requirements.txt` names, in an environment of their own.

use std::path::{Path, PathBuf};

use super::npm::FOLDER;

fn environment() -> PathBuf {
    Path::new(FOLDER).join(".venv")
}

/// Returns the path of a program that a package installs.
pub(super) fn program(name: &str) -> PathBuf {
    environment().join("bin").join(name)
}

/// Returns the folder of an installed package.
pub(super) fn package(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir(environment().join("lib")).ok()?;
    let folders = versions.flatten().map(|version| version.path().join("site-packages").join(name));
    folders.into_iter().find(|folder| folder.is_dir())
}

/// Says how the packages are installed.
pub(super) fn how_to_install() -> String {
    format!(
        "python3 -m venv {0}/.venv && {0}/.venv/bin/pip install --requirement {0}/requirements.txt",
        FOLDER
    )
}
