//! A folder for the files of a program, and a port for it. The folder goes when it is dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::ServerError;

/// See the module.
pub(crate) struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// A new folder for the program `name` among temporary files.
    pub(crate) fn new(name: &str) -> Result<Self, ServerError> {
        Self::within(&std::env::temp_dir(), name)
    }

    /// A new folder for the server `name` in `parent`.
    pub(super) fn within(parent: &Path, name: &str) -> Result<Self, ServerError> {
        let unique = format!("loadtest-{name}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let folder = parent.join(unique);
        std::fs::create_dir(&folder)
            .map_err(|error| ServerError::Files(folder.display().to_string(), error))?;
        Ok(Self { folder })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes a file into it; the file's path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String, ServerError> {
        let path = self.folder.join(name).display().to_string();
        std::fs::write(&path, text).map_err(|error| ServerError::Files(path.clone(), error))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover says by its name whose it is.
        let _left = std::fs::remove_dir_all(&self.folder);
    }
}

/// An address that is free now, for programs that cannot pick one.
pub(super) fn free_address() -> Result<SocketAddr, ServerError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let address = TcpListener::bind(any).and_then(|listener| listener.local_addr());
    address.map_err(|error| ServerError::Files("a free port".into(), error))
}
