//! A file beside the log with a reading of the clock. The times in a store are times of `clock::Clock`, which need not be the
//! time of day, so after a restart the clock must continue where it was.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, ClockReading};

/// If the time of day and the clock move apart by this much, the time of day was stepped; less comes from reading them one
/// after the other.
const STEP_MIN: Duration = Duration::from_secs(1);

/// The maximum age of the reading. The clock goes back by at most this after a restart if neither the boot-time clock nor the
/// time of day tells how long the store was closed.
const AGE_MAX: Duration = Duration::from_secs(600);

/// Greatest valid time in a reading: the year 5138.
const MILLIS_MAX: u64 = 100_000_000_000_000;

/// The clock file of a store.
#[derive(Debug)]
pub struct ClockFile {
    path: PathBuf,
    /// The reading in the file, if it has a valid one.
    last: Option<ClockReading>,
}

/// The content of the file, in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
struct ClockRecord {
    now: u64,
    wall: u64,
    boot: Option<(String, u64)>,
}

impl ClockFile {
    /// Reads the clock file of the store in `directory`. A missing or invalid file is the same as one without a reading.
    pub fn read(directory: &Path) -> Self {
        let path = directory.join("clock");
        let stored = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let last = stored.and_then(|stored: ClockRecord| stored.reading());
        Self { path, last }
    }

    /// The clock that continues from the reading; a new clock without a reading.
    pub fn clock(&self) -> Clock {
        self.last.as_ref().map_or_else(Clock::start, Clock::resume)
    }

    /// Whether the file must be written again, so that a later clock continues correctly.
    pub fn is_outdated(&self, clock: Clock) -> bool {
        let Some(last) = &self.last else { return true };
        let now = clock.now();
        let passed = now.duration_since(last.now).unwrap_or_default();
        passed >= AGE_MAX || apart(last.wall + passed, clock.wall()) >= STEP_MIN
    }

    /// Writes a reading of the clock. After a power cut the file has this reading or the previous one.
    pub fn write(&mut self, clock: Clock) -> io::Result<()> {
        let reading = clock.reading();
        let text = serde_json::to_vec(&ClockRecord::of(&reading))?;
        let new = self.path.with_extension("new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.last = Some(reading);
        Ok(())
    }
}

impl ClockRecord {
    fn of(reading: &ClockReading) -> Self {
        let since_1970 = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            now: millis(since_1970(reading.now)),
            wall: millis(since_1970(reading.wall)),
            boot: reading.boot.as_ref().map(|(id, up)| (id.clone(), millis(*up))),
        }
    }

    fn reading(self) -> Option<ClockReading> {
        let times = [self.now, self.wall, self.boot.as_ref().map_or(0, |(_, up)| *up)];
        let time = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        times.iter().all(|millis| *millis <= MILLIS_MAX).then(|| ClockReading {
            now: time(self.now),
            wall: time(self.wall),
            boot: self.boot.map(|(id, up)| (id, Duration::from_millis(up))),
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).or_else(|_| other.duration_since(one)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedTime;

    const DAYS_400: Duration = Duration::from_secs(400 * 24 * 3600);

    #[test]
    fn it_is_outdated_after_a_step_and_after_ten_minutes() {
        let directory = tempfile::tempdir().unwrap();
        let time = SimulatedTime::start();
        let (clock, mut file) = (time.clock(), ClockFile::read(directory.path()));
        assert!(file.is_outdated(clock));
        file.write(clock).unwrap();
        for (act, is_outdated) in [
            ((|time: &SimulatedTime| time.suspend(Duration::from_secs(590))) as fn(&SimulatedTime), false),
            (|time| time.suspend(Duration::from_secs(10)), true),
            (|time| time.set_back(DAYS_400), true),
            (|time| time.set_forward(DAYS_400), true),
        ] {
            act(time);
            assert_eq!(file.is_outdated(clock), is_outdated);
            if is_outdated {
                file.write(clock).unwrap();
                assert!(!file.is_outdated(clock));
            }
        }
        let read = ClockFile::read(directory.path());
        let [read, written] = [read, file].map(|file| ClockRecord::of(&file.last.unwrap()));
        assert_eq!((read.now, read.wall, read.boot), (written.now, written.wall, written.boot));
    }

    #[test]
    fn an_invalid_file_has_no_reading() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = ClockFile::read(directory.path());
        file.write(SimulatedTime::start().clock()).unwrap();
        let written = fs::read(&file.path).unwrap();
        assert!(ClockFile::read(directory.path()).last.is_some());
        for damaged in [&b""[..], b"{}", b"\0\0\0", br#"{"now":1,"wall":1e30,"boot":null}"#, &written[1..]] {
            fs::write(&file.path, damaged).unwrap();
            assert_eq!(ClockFile::read(directory.path()).last, None);
        }
        let far = br#"{"now":18446744073709551615,"wall":1,"boot":null}"#;
        fs::write(&file.path, far).unwrap();
        assert_eq!(ClockFile::read(directory.path()).last, None);
    }
}
