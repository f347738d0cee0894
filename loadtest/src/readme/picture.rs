//! Pictures of the plots of a report, taken by Chromium.

use std::path::Path;
use std::process::Command;

use super::{ReadmeError, read, write};

/// Programs that are Chromium.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Width and height of the picture.
const WINDOW: &str = "--window-size=1280,912";

/// Leaves the plots of the page without what is operated.
const ONLY_PLOTS: &str = "<style>header, main > :not(#plots), #plots > h2, #plots > .hint, #bars, #plots label { display: none }\
                          body { padding: 1rem } .legend { margin: 0 0 .6rem } html { color-scheme: light }</style>";

/// Takes a picture of a report's plots.
pub(super) fn take(page: &Path, picture: &Path) -> Result<(), ReadmeError> {
    let copy = page.with_file_name("plots.html");
    write(&copy, read(page)?.replacen("<header>", &format!("{ONLY_PLOTS}<header>"), 1))?;
    // Chromium makes no folder.
    write(picture, [])?;
    let failed = |why: String| ReadmeError::Picture(picture.display().to_string(), why);
    let address = format!("file://{}", copy.display());
    let (target, profile) = (
        format!("--screenshot={}", picture.display()),
        format!("--user-data-dir={}", page.with_file_name("profile").display()),
    );
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.args(["--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=5000"]);
        command.args([WINDOW, &target, &profile, &address]);
        match command.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => return Err(failed(output.status.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Err(failed("Chromium is not installed (Debian: chromium)".to_owned()))
}
