//! The report as one HTML file with plots, which works offline.
//!
//! The page's sources are in `page/`. The report is embedded as JSON and drawn by the page's own script, so that no text of a
//! report becomes markup. The content security policy blocks external resources.

use serde::Serialize;

use super::sweep::Sweep;
use crate::data::{Report, SimulatedDay};
use crate::matrix::Rows;

/// What a page shows.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Page<'a> {
    /// The answer in a few sentences.
    pub verdict: Option<&'a str>,
    /// The command line.
    pub command: &'a str,
    /// A comparison.
    pub report: Option<&'a Report>,
    /// A sweep over settings.
    pub sweep: Option<&'a Sweep>,
    /// A simulated day.
    pub day: Option<&'a SimulatedDay>,
    /// Readers through hostile networks.
    pub networks: Option<&'a Rows>,
}

/// Returns the page of a report, with a sweep if there is one.
pub fn html(report: &Report, sweep: Option<&Sweep>) -> String {
    Page {
        verdict: report.verdict.as_deref(),
        command: &report.command,
        report: Some(report),
        sweep,
        day: report.day.as_ref(),
        networks: None,
    }
    .html()
}

impl Page<'_> {
    /// Returns the page as one file.
    pub fn html(&self) -> String {
        // No type of a page holds a map with other keys than texts, or a value that cannot be serialized.
        let data = serde_json::to_string(self).unwrap_or_default();
        format!(
            include_str!("../../page/page.html"),
            library_style = include_str!(concat!(env!("OUT_DIR"), "/uplot.css")),
            style = include_str!("../../page/page.css"),
            // In JSON this escape is the same character; no text can end the element or open a comment.
            data = data.replace('<', "\\u003c"),
            library = include_str!(concat!(env!("OUT_DIR"), "/uplot.js")),
            script = concat!(
                "\"use strict\"\n{\n",
                include_str!("../../page/figures.js"),
                include_str!("../../page/plots.js"),
                include_str!("../../page/day.js"),
                include_str!("../../page/networks.js"),
                include_str!("../../page/page.js"),
                "}\n"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    /// Texts that would load an external resource.
    const OUTSIDE: [&str; 8] = ["src=", "href=", "url(", "@import", "<link", "<img", "<iframe", "import("];

    /// Splits the page into its JSON and the rest.
    fn data_and_rest(page: &str) -> (String, String) {
        let (before, after) = page.split_once("type=\"application/json\">").unwrap();
        let (data, after) = after.split_once("</script>").unwrap();
        (data.to_owned(), before.to_owned() + after)
    }

    #[test]
    fn the_page_loads_no_external_resource() {
        let (data, rest) = data_and_rest(&html(&fixture::report(), Some(&fixture::sweep())));
        assert!(!data.contains('<'));
        for outside in OUTSIDE {
            assert!(!rest.contains(outside), "{outside}");
        }
        let policy =
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";
        assert!(rest.contains(policy));
    }

    #[test]
    fn text_of_a_report_never_becomes_markup() {
        let mut report = fixture::report();
        let scripts = html(&report, None).matches("</script>").count();
        report.command = "</script><script>alert(1)</script><!-- <script>".to_owned();
        let page = html(&report, None);
        assert_eq!(page.matches("</script>").count(), scripts);
        assert!(!page.contains("<!-- "));
    }

    #[test]
    fn the_embedded_json_is_the_report() {
        let (data, _) = data_and_rest(&html(&fixture::report(), None));
        let read: serde_json::Value = serde_json::from_str(&data).unwrap();
        let report = serde_json::to_string(&fixture::report()).unwrap();
        assert_eq!(read["report"], serde_json::from_str::<serde_json::Value>(&report).unwrap());
        assert!(read["sweep"].is_null());
    }
}
