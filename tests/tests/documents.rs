//! What docs/how-it-works.md calls its proof is there.

use std::{collections::BTreeSet, fs, path::Path};
use tillflow_engine::log::sim::Defect;

/// The lines of all of the repository's own Rust files.
fn sources(directory: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            sources(&path, lines);
        } else if name.ends_with(".rs") {
            lines.extend(fs::read_to_string(&path).unwrap().lines().map(str::to_owned));
        }
    }
}

#[test]
fn every_test_and_defect_that_proves_a_step_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut lines = Vec::new();
    sources(root, &mut lines);
    let functions: BTreeSet<&str> = lines.iter().filter_map(|line| Some(line.split_once("fn ")?.1)).collect();
    let defects: Vec<String> = Defect::ALL.iter().map(|defect| format!("{defect:?}")).collect();

    let document = fs::read_to_string(root.join("docs/how-it-works.md")).unwrap();
    // Every other part stands between backticks.
    let code: Vec<&str> = document.split('`').skip(1).step_by(2).collect();
    let tests: Vec<&str> = code.iter().filter_map(|code| code.strip_suffix('…')).filter(|name| !name.contains('.')).collect();
    let planted: Vec<&str> =
        code.iter().copied().filter(|code| code.starts_with(char::is_uppercase) && !code.contains(['_', '='])).collect();
    assert!(tests.len() > 40 && planted.len() > 15, "{tests:?} {planted:?}");
    for test in tests {
        assert!(functions.iter().any(|function| function.starts_with(test)), "no test begins with {test}");
    }
    for name in planted {
        assert!(defects.iter().any(|defect| defect == name), "{name} is no planted defect");
    }
}
