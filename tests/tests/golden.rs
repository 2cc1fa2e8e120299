//! A shop that an earlier version left is taken over as it was. `tests/golden/VERSION` holds a backup of one and what it
//! answered then; `GOLDEN=VERSION` writes that anew, which belongs to a release and to nothing else.

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tillflow_tests::{
    Tillflow,
    orders::{earned_at, orders},
    scratch, until,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Answers that rest on state alone, not on the time at which they are asked for.
const ASKED: [&str; 9] = [
    "/v1/users/u1/loyalty",
    "/v1/users/u1/loyalty/ledger",
    "/v1/users/u1/loyalty/badges",
    "/v1/users/u1/subscription",
    "/v1/users/u2/entitlements",
    "/v1/users/u2/segments",
    "/v1/users/u2/email",
    "/v1/products/tea/price/history",
    "/v1/products/tea/related",
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn answers(shop: &Tillflow) -> Value {
    ASKED.iter().map(|path| ((*path).to_owned(), shop.json(path))).collect::<serde_json::Map<_, _>>().into()
}

/// A shop in which each system has something to remember.
fn lived() -> Tillflow {
    let mut shop = Tillflow::run().set("time.grace_s", 0).spawn();
    shop.wait_until_ready();
    let post = |topic: &str, body: Value| assert_eq!(shop.post(&format!("/v1/topics/{topic}"), body).status(), 202, "{topic}");
    for (id, price) in [("tea", "10.00"), ("cup", "7.50")] {
        post("products", json!({"product_id": id, "name": id, "category": "kitchen", "base_price": price, "currency": "EUR"}));
        post("inventory", json!({"product_id": id, "stock_level": 15}));
    }
    for user in ["u1", "u2"] {
        let consent = json!({"status": "granted", "at": "2026-01-01T00:00:00Z", "source": "checkout", "text_version": "1"});
        post("customers", json!({"user_id": user, "email": format!("{user}@example.org"), "consent": consent}));
        post(
            "subscription_events",
            json!({"user_id": user, "plan_id": "premium_box", "action": "started", "subscription_id": format!("s-{user}")}),
        );
    }
    let seen = |user: &str, kind: &str, product: &str| json!({"event_type": kind, "user_id": user, "product_id": product});
    let mut events = Vec::new();
    for user in (0..8).map(|n| format!("u{n}")) {
        events.extend([seen(&user, "product_viewed", "tea"), seen(&user, "product_viewed", "cup"), seen(&user, "added_to_cart", "cup")]);
    }
    assert_eq!(shop.post("/v1/events", json!(events)).status(), 202);
    assert_eq!(shop.post("/v1/events", orders(0..16)).status(), 202);
    until("all is counted", LIMIT, || {
        let answers = answers(&shop);
        let has = |path: &str, field: &str| answers[path][field].as_array().is_some_and(|list| !list.is_empty());
        earned_at(&shop).len() == 16
            && has("/v1/users/u2/segments", "segments")
            && has("/v1/products/tea/price/history", "history")
            && has("/v1/products/tea/related", "related")
    });
    shop
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Backs a shop up, with what it answers. RocksDB's own settings say where it lay, and are not needed.
fn write(version: &str) {
    let mut shop = lived();
    let to = golden().join(version);
    let _ = fs::remove_dir_all(&to);
    let text = format!("{:#}\n", answers(&shop));
    assert!(shop.stop().success(), "{}", shop.stderr());
    let backup = shop.files().join("copy");
    Tillflow::command(["backup"]).arg(backup.display().to_string()).in_directory_of(shop.files()).finish().says(0, &[]);
    copy(&backup, &to);
    fs::write(to.join("answers.json"), text).unwrap();
    for entry in fs::read_dir(to.join("embedded")).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("OPTIONS") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn what_earlier_versions_left_is_taken_over_as_it_was() {
    if let Ok(version) = std::env::var("GOLDEN") {
        write(&version);
    }
    let versions: Vec<_> = fs::read_dir(golden()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!versions.is_empty());
    for version in versions {
        let files = Arc::new(scratch("golden"));
        let restore = Tillflow::command(["restore"]).arg(version.display().to_string()).in_directory_of(&files).finish();
        restore.says(0, &[]);
        let mut shop = Tillflow::run().set("time.grace_s", 0).in_directory_of(&files).spawn();
        shop.wait_until_ready();
        let then: Value = serde_json::from_str(&fs::read_to_string(version.join("answers.json")).unwrap()).unwrap();
        assert_eq!(answers(&shop), then, "{}", version.display());
        // It goes on: known orders do not count again, new ones do.
        assert_eq!(shop.post("/v1/events", orders(8..24)).status(), 202);
        until("new ones count", LIMIT, || earned_at(&shop) == (0..24).collect::<Vec<_>>());
        assert!(shop.stop().success(), "{}", shop.stderr());
    }
}
