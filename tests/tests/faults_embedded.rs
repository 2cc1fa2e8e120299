//! What surrounds an instance on the embedded log is wrong: another process on its directory, damaged files, a full disk.
//! Each is said with what is to be done, and nothing is lost.

use std::{fs, path::Path, time::Duration};
use tillflow_tests::{
    Tillflow, can_have_disks,
    orders::{earned_at, orders},
    until,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Files of a store whose names begin or end like this.
fn files(store: &Path, like: &str) -> Vec<std::path::PathBuf> {
    let all = fs::read_dir(store).unwrap().map(|e| e.unwrap().path());
    let named =
        |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(like) || n.to_string_lossy().ends_with(like));
    all.filter(|path| named(path)).collect()
}

#[test]
fn of_two_processes_on_one_directory_the_second_ends_and_the_first_goes_on() {
    let mut first = Tillflow::run().set("time.grace_s", 0).spawn();
    first.wait_until_ready();
    let second = Tillflow::run().set("listen", "127.0.0.1:0").in_directory_of(first.files()).finish();
    second.says(1, &["tillflow-data", "in use by another process", "choose another data directory"]);
    assert_eq!(first.post("/v1/events", orders(0..8)).status(), 202);
    until("the first goes on", LIMIT, || earned_at(&first).len() == 8);
    assert!(first.stop().success(), "{}", first.stderr());
}

#[test]
fn a_damaged_directory_is_named_and_left_as_it_is_and_a_backup_of_it_goes_on() {
    let mut shop = Tillflow::run().set("time.grace_s", 0).spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(0..8)).status(), 202);
    until("all count", LIMIT, || earned_at(&shop).len() == 8);
    assert!(shop.stop().success(), "{}", shop.stderr());
    let copy = shop.files().join("copy");
    Tillflow::command(["backup"]).arg(copy.display().to_string()).in_directory_of(shop.files()).finish().says(0, &[]);

    let log = shop.files().join("tillflow-data").join("embedded");
    let manifests = files(&log, "MANIFEST");
    assert!(!manifests.is_empty(), "{:?}", files(&log, ""));
    for file in &manifests {
        fs::write(file, vec![0x5a; fs::metadata(file).unwrap().len() as usize]).unwrap();
    }
    let before = files(&log, "").len();
    let damaged = Tillflow::run().set("listen", "127.0.0.1:0").in_directory_of(shop.files()).finish();
    damaged.says(1, &["embedded", "damaged", "restore a backup"]);
    assert!(files(&log, "").len() >= before, "nothing is thrown away");

    fs::remove_dir_all(shop.files().join("tillflow-data")).unwrap();
    Tillflow::command(["restore"]).arg(copy.display().to_string()).in_directory_of(shop.files()).finish().says(0, &[]);
    shop.start_again();
    shop.wait_until_ready();
    assert_eq!(earned_at(&shop), (0..8).collect::<Vec<_>>());
    assert_eq!(shop.post("/v1/events", orders(4..16)).status(), 202);
    until("new ones count, and known ones not again", LIMIT, || earned_at(&shop) == (0..16).collect::<Vec<_>>());
    assert!(shop.stop().success(), "{}", shop.stderr());
}

#[test]
fn a_full_disk_is_said_to_who_sends_and_with_room_again_each_order_counts_once() {
    if !can_have_disks() {
        return;
    }
    let mut shop = Tillflow::run().set("time.grace_s", 0).with_disk_of(48).within(LIMIT).spawn();
    shop.wait_until_ready();
    assert_eq!(shop.post("/v1/events", orders(0..16)).status(), 202);
    until("they count", LIMIT, || earned_at(&shop).len() == 16);
    let ballast = shop.disk().join("ballast");
    assert!(fs::write(&ballast, vec![1; 64 << 20]).is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull));
    // Those that were taken are to count; of those that were refused nobody knows, and they are sent again.
    let mut sent = 16;
    until("orders are refused", LIMIT, || {
        assert!(shop.process().is_running(), "{}", shop.stderr());
        let answer = shop.post("/v1/events", orders(sent..sent + 8));
        sent += if answer.status() == 202 { 8 } else { 0 };
        answer.status() == 503 && answer.headers().contains_key("retry-after")
    });
    fs::remove_file(&ballast).unwrap();
    until("it takes orders again", LIMIT, || {
        assert!(shop.process().is_running(), "{}", shop.stderr());
        shop.post("/v1/events", orders(sent..sent + 8)).status() == 202
    });
    sent += 8;
    until("each counts once", LIMIT, || earned_at(&shop) == (0..sent).collect::<Vec<_>>());
    let said = shop.stderr();
    assert!(said.to_lowercase().contains("no space left") && !said.contains("panicked"), "{said}");
    shop.wait_until_ready();
    assert!(shop.stop().success(), "{}", shop.stderr());
}
