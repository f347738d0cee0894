//! The tables of the documents, made with a tiny workload.

use std::path::Path;

use serde_json::Value;

use crate::world::{Loadtest, alone};

fn read(folder: &Path, path: &str) -> String {
    std::fs::read_to_string(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tables_of_the_documents_can_be_made() {
    let _turn = alone().await;
    let made = Loadtest::new_without_output(&[]).folder;
    let ended =
        Loadtest::new_without_output(&["readme", "--short", "--into", made.to_str().unwrap()]).run().await;
    assert_eq!(ended.code, Some(0));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
    let mut count = 0;
    for name in loadtest::readme::names().unwrap() {
        let path = format!("docs/tables/{name}.json");
        let present: Value = serde_json::from_str(&read(&repository, &path)).unwrap();
        if present["sources"].is_null() {
            continue;
        }
        let table: Value = serde_json::from_str(&read(&made, &path)).unwrap();
        assert_eq!(table["columns"], present["columns"], "{name}");
        let rows = table["rows"].as_array().unwrap();
        assert!(!rows.is_empty(), "{name}");
        let text = read(&made, present["document"].as_str().unwrap());
        for row in rows {
            let cells = row.as_array().unwrap().iter().map(|cell| cell.as_str().unwrap());
            let cells: Vec<_> = cells.collect();
            assert!(
                text.contains(&format!("| {} |", cells.join(" | ").replace("  ", " "))),
                "{name}: {cells:?}"
            );
        }
        if let Some(picture) = present["picture"].as_str() {
            let bytes = std::fs::read(made.join(picture)).unwrap();
            assert!(
                bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000,
                "{picture}: {} bytes",
                bytes.len()
            );
        }
        count += 1;
    }
    assert!(count >= 8, "{count} tables");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_does_not_exist_is_named() {
    let ended = Loadtest::new_without_output(&["readme", "--table", "moon"]).run().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.said.contains("no table moon; there are day, "), "{}", ended.said);
}
