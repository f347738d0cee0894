//! [`Scratch`]: a folder for the files of a program, removed on drop. Also picks free ports.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::ServerError;

/// A temporary folder.
pub(crate) struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Creates a folder for the program `name` among the temporary files.
    pub(crate) fn new(name: &str) -> Result<Self, ServerError> {
        Self::within(&std::env::temp_dir(), name)
    }

    /// Creates a folder for the server `name` in `parent`.
    pub(crate) fn within(parent: &Path, name: &str) -> Result<Self, ServerError> {
        // Not random: simulations seed the generator of their thread, and would draw the same number.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let folder = parent.join(format!("loadtest-{name}-{}-{number}", std::process::id()));
            match std::fs::create_dir(&folder) {
                Ok(()) => return Ok(Self { folder }),
                // Of a process that was killed and had the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ServerError::Files(folder.display().to_string(), error)),
            }
        }
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes a file into the folder and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String, ServerError> {
        let path = self.folder.join(name).display().to_string();
        std::fs::write(&path, text).map_err(|error| ServerError::Files(path.clone(), error))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it fails, the folder's name still tells which program left it.
        let _left = std::fs::remove_dir_all(&self.folder);
    }
}

/// Returns a free address, for programs that cannot choose one themselves. The port is below `net.ipv4.ip_local_port_range`: the kernel gives
/// it to no outgoing connection, so it is still free when the program listens.
pub(super) fn free_address() -> Result<SocketAddr, ServerError> {
    let ports = 32_000..32_768;
    let any = fastrand::u16(ports.clone());
    let from_any = (any..ports.end).chain(ports.start..any);
    let mut addresses = from_any.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let free = addresses.find(|&address| TcpListener::bind(address).is_ok());
    free.ok_or_else(|| ServerError::Files("a free port".into(), ErrorKind::AddrInUse.into()))
}
