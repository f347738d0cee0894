//! What the gateway itself sends: wakes of devices.

pub mod wake;
