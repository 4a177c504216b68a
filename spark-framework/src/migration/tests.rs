use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of this file of the repository, or of all files below this folder.
fn text(path: &str) -> String {
    let path = root().join(path);
    if path.is_file() {
        return fs::read_to_string(path).unwrap();
    }
    let mut text = String::new();
    for entry in fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
        let path = entry.unwrap().path();
        let end = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if path.is_dir() || ["rs", "java"].contains(&end) {
            text += &self::text(path.strip_prefix(root()).unwrap().to_str().unwrap());
        }
    }
    text
}

/// The words of a text that begin so, without a dot at their end.
fn words<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let each = text.match_indices(start).map(|(at, _)| {
        let end = text[at..].find(|c| !of_a_name(c)).map_or(text.len(), |n| at + n);
        text[at..end].trim_end_matches('.')
    });
    each.collect()
}

fn known(name: &str) -> bool {
    OURS.iter().any(|known| is(name, known) || known.starts_with(&format!("{name}.")))
}

#[test]
fn every_setting_that_is_read_or_documented_is_known() {
    let sources =
        ["spark-framework/bridge/src", "spark-framework/src", "cli/src"].map(text).concat();
    // Of tests that look for what is not there.
    let wrong = [
        "spark.mezz.excutor.home",
        "spark.mezz.executor.Labels",
        "spark.mezz.nonsense",
        "spark.mezz",
    ];
    for (place, text) in
        [("sources", sources), ("docs", text("docs/spark.md") + &text("docs/spark-migration.md"))]
    {
        for name in words(&text, "spark.mezz.") {
            let mentioned = wrong.contains(&name) || known(name);
            assert!(mentioned, "{name}, in the {place}, is missing in migration::OURS");
        }
    }
}

#[test]
fn every_setting_of_ours_is_documented_and_read() {
    let docs = text("docs/spark.md") + &text("docs/spark-migration.md");
    // The names' ends alone are in tables.
    let docker = "spark.mezz.driver.docker.";
    let short = ["spark.mezz.driver.bin", "spark.mezz.driver.bridgeJar"];
    for name in OURS {
        let mentioned = docs.contains(name) || name.starts_with(docker) || short.contains(&name);
        assert!(mentioned, "{name} is not in docs/spark.md");
    }
    assert!(OURS.is_sorted() && MESOS.is_sorted_by_key(|(old, _)| old));
}

/// The rows of the table under a heading: the code of the first cell, and the second cell.
fn rows(heading: &str) -> Vec<(Vec<String>, String)> {
    let docs = text("docs/spark-migration.md");
    let section = docs.split("\n## ").find(|s| s.starts_with(heading)).expect("the section");
    let rows = section.lines().filter(|l| l.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split(" | ");
        let first = cells.next().unwrap();
        let old = first.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (old, cells.next().expect("a second cell").trim_end_matches(" |").trim().to_owned())
    })
    .collect()
}

#[test]
fn the_page_for_people_says_the_same() {
    let mut left: BTreeSet<&str> = MESOS.iter().map(|(old, _)| *old).collect();
    for (names, here) in rows("From Mesos") {
        for name in names.iter().filter(|name| name.starts_with("spark.mesos.")) {
            let name = name.strip_suffix("NAME").unwrap_or(name);
            let (_, means) = MESOS
                .iter()
                .find(|(old, _)| *old == name)
                .unwrap_or_else(|| panic!("{name} is in the page and not in migration::MESOS"));
            let says = match means {
                Use(new) => format!("`{new}"),
                Nothing(why) => format!("none: {why}"),
            };
            assert!(here.contains(&says), "{name}: the page says {here}, the table {says}");
            assert!(left.remove(name), "{name} is in two rows");
        }
    }
    assert!(left.is_empty(), "in migration::MESOS and not in the page: {left:?}");
}

fn one(name: &str) -> String {
    let all = warnings(&[name.to_owned()]);
    assert_eq!(all.len(), 1, "{name}: {all:?}");
    all[0].clone()
}

#[test]
fn what_the_log_says() {
    for (name, said) in [
        (
            "spark.mesos.role",
            "spark.mesos.role is of Mesos and does nothing here: use spark.mezz.role;",
        ),
        ("spark.mesos.driverEnv.X", "use spark.mezz.driverEnv.NAME;"),
        ("spark.mesos.executor.secret.values", "use spark.executorEnv.NAME;"),
        ("spark.mesos.containerizer", "nothing like it here: an image is run by Docker"),
        ("spark.mesos.dispatcher.queue", "use spark.mezz.dispatcher.priority;"),
        ("spark.mesos.unheard.of", "does nothing here; see docs/spark-migration.md"),
        ("spark.mezz.excutor.home", "does nothing; is it spark.mezz.executor.home?"),
        ("spark.mezz.executor.Labels", "is it spark.mezz.executor.labels?"),
        ("spark.mezz.nonsense", "docs/spark.md lists"),
    ] {
        let text = one(name);
        assert!(text.contains(said), "{name}: {text}");
    }
    let quiet = ["spark.mezz.role", "spark.mezz.driverEnv.X", "spark.app.name"].map(str::to_owned);
    assert_eq!(warnings(&quiet), Vec::<String>::new());
}
