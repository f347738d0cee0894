//! Provides the plotting library of the report page (uPlot, pinned by `page/package-lock.json`), which `report::page` inlines.
//! It is taken from `page/node_modules` if it is installed there, as a build without network access requires; otherwise npm
//! installs it into the build's output folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=page/package-lock.json");
    if let Err(error) = lay_out() {
        println!("cargo::error=the report page needs uPlot: {error}");
    }
}

fn lay_out() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let own = Path::new("page/node_modules/uplot/dist");
    let dist = if own.exists() { own.to_owned() } else { installed(&out.join("page"))? };
    for (from, to) in [("uPlot.iife.min.js", "uplot.js"), ("uPlot.min.css", "uplot.css")] {
        let from = dist.join(from);
        fs::copy(&from, out.join(to)).map_err(|error| format!("{}: {error}", from.display()))?;
    }
    Ok(())
}

/// Installs the package into `folder`, verified by the lock file's digest, and returns the folder of its files.
fn installed(folder: &Path) -> Result<PathBuf, String> {
    let copied = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for name in ["package.json", "package-lock.json"] {
            fs::copy(Path::new("page").join(name), folder.join(name))?;
        }
        Ok(())
    };
    copied().map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
    let output =
        npm.output().map_err(|error| format!("npm does not start ({error}); install it (Debian: npm)"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let line = complaint.lines().find(|line| line.contains("npm error")).unwrap_or("no reason given");
        return Err(format!("npm ci failed: {line}"));
    }
    Ok(folder.join("node_modules/uplot/dist"))
}
