//! E-mail through the whole program: from an event to a file in the outbox.

use serde_json::json;
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};
use tillflow_tests::{
    Kafka, Run, Smtp, SmtpReply, Tillflow,
    compare::{embedded_log, outputs_in},
    until,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A shop that says who it is, with an outbox in its working directory.
fn shop() -> Run {
    sender(Tillflow::run()).set("email.outbox", "outbox")
}

fn sender(shop: Run) -> Run {
    shop.set("time.grace.s", 0)
        .set("email.sender.from", "Tea Shop <hello@shop.example>")
        .set("email.sender.postal_address", "1 Harbour Street, Leith")
        .set("email.sender.unsubscribe_url", "https://shop.example/unsubscribe")
        .set("email.sender.secret", "secret")
}

/// The same by a mail server.
fn by_smtp(server: &Smtp) -> Run {
    sender(Tillflow::run()).set("email.smtp.host", "127.0.0.1").set("email.smtp.port", server.port()).set("email.smtp.tls", "none")
}

/// Names and contents of the mails in a folder.
fn mails(folder: &Path) -> Vec<(String, String)> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    let mut mails: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "eml"))
        .map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap()))
        .collect();
    mails.sort();
    mails
}

/// An order that lifts a customer to silver, which is worth a mail.
fn reaches_silver(shop: &Tillflow, user: &str) {
    let consent = json!({"status": "granted", "at": "2026-01-01T00:00:00Z", "source": "checkout", "text_version": "1"});
    let customer = json!({"user_id": user, "email": format!("{user}@example.org"), "first_name": "Ada", "consent": consent});
    assert_eq!(shop.post("/v1/topics/customers", customer).status(), 202);
    let order = json!({"event_type": "order_completed", "user_id": user, "order_id": format!("o-{user}"), "total_amount": "600.00",
        "items": [{"product_id": "tea", "quantity": 1}]});
    assert_eq!(shop.post("/v1/events", order).status(), 202);
}

#[test]
fn a_mail_that_is_triggered_lies_in_the_outbox_once_whatever_happens_to_the_process() {
    let mut shop = shop().spawn();
    shop.wait_until_ready();
    let outbox = shop.files().join("outbox");
    reaches_silver(&shop, "ada");
    until("the first mail", LIMIT, || mails(&outbox).len() == 1);
    let (_, mail) = mails(&outbox).remove(0);
    for part in ["To: ada@example.org", "From: \"Tea Shop\" <hello@shop.example>", "List-Unsubscribe: <https://shop.example/unsubscribe/"] {
        assert!(mail.contains(part), "{part} in {mail}");
    }
    assert!(mail.contains("List-Unsubscribe-Post: List-Unsubscribe=One-Click") && mail.contains("1 Harbour Street, Leith"), "{mail}");
    let written = |path: &str| fs::metadata(path).unwrap().modified().unwrap();
    let first: Vec<(String, SystemTime)> = mails(&outbox).into_iter().map(|(path, _)| (path.clone(), written(&path))).collect();

    shop.kill();
    shop.start_again();
    shop.wait_until_ready();
    reaches_silver(&shop, "ben");
    until("the second mail", LIMIT, || mails(&outbox).len() == 2);
    for (path, at) in first {
        assert_eq!(written(&path), at, "the first mail was written again");
    }
    let sent = r#"tillflow_email_results_total{status="sent"} 1"#;
    until("one mail of this process", LIMIT, || shop.get("/metrics").text().unwrap().contains(sent));
    assert!(shop.stop().success());
}

#[test]
fn a_mail_leaves_by_smtp_once_and_one_whose_outcome_nobody_knows_is_not_sent_again() {
    let server = Smtp::start();
    let mut shop = by_smtp(&server).spawn();
    shop.wait_until_ready();
    let results = |shop: &Tillflow, status: &str, count: u32| {
        let line = format!("tillflow_email_results_total{{status=\"{status}\"}} {count}\n");
        until(&line, LIMIT, || shop.get("/metrics").text().unwrap().contains(&line));
    };
    reaches_silver(&shop, "ada");
    let mail = server.wait_for(1, LIMIT).remove(0);
    assert_eq!((mail.to[0].as_str(), mail.from.as_str()), ("ada@example.org", "hello@shop.example"));
    results(&shop, "sent", 1);

    // The server is away: the mail waits for it.
    server.go_down();
    reaches_silver(&shop, "ben");
    until("the first try", LIMIT, || shop.stderr().contains("tried again"));
    server.come_up();
    server.wait_for(2, LIMIT);
    results(&shop, "sent", 2);

    // It takes the mail and dies before it says so: nobody knows.
    server.reply_next(SmtpReply::AcceptAndCut);
    reaches_silver(&shop, "cleo");
    server.wait_for(3, LIMIT);
    results(&shop, "unknown", 1);

    // Neither a restart nor time sends anything twice.
    shop.kill();
    shop.start_again();
    shop.wait_until_ready();
    reaches_silver(&shop, "dora");
    let mails = server.wait_for(4, LIMIT);
    let to: Vec<_> = mails.iter().map(|mail| mail.to[0].as_str()).collect();
    assert_eq!(to, ["ada@example.org", "ben@example.org", "cleo@example.org", "dora@example.org"]);
}

#[test]
fn of_two_instances_one_sends_each_mail_also_where_one_of_them_dies_in_the_middle() {
    let (server, kafka) = (Smtp::start(), Kafka::shared());
    let prefix = kafka.prefix();
    let instance = |id: &str| {
        let shop = by_smtp(&server).set("brokers", kafka.bootstrap()).set("topics.prefix", &prefix);
        let mut shop = shop.set("instance.id", id).set("kafka.session_timeout_s", 6).set("email.smtp.rate", 20).spawn();
        shop.wait_until_ready();
        shop
    };
    let (mut first, second) = (instance("a"), instance("b"));
    let users: Vec<String> = (0..40).map(|n| format!("user{n}")).collect();
    for user in &users {
        reaches_silver(&second, user);
    }
    server.wait_for(users.len() / 4, LIMIT);
    first.kill();
    let settled = || {
        let results = kafka.read(&format!("{prefix}email_results"));
        let said = |status: &str| results.iter().map(|r| r.json()).filter(|r| r["status"] == status).count();
        // What was being sent when it died is nobody's to know.
        (said("sent"), said("unknown"))
    };
    until("every mail is settled", Duration::from_secs(240), || {
        let (sent, unknown) = settled();
        sent + unknown == users.len()
    });
    let mut to: Vec<String> = server.mails().iter().map(|mail| mail.to[0].clone()).collect();
    to.sort();
    let before = to.len();
    to.dedup();
    assert_eq!(to.len(), before, "sent twice");
    let (sent, unknown) = settled();
    assert!(sent <= before && before <= users.len() && unknown <= 4, "{before} mails, {sent} sent, {unknown} unknown");
}

#[test]
fn a_click_on_the_link_unsubscribes_and_no_further_mail_leaves() {
    let mut shop = shop().spawn();
    shop.wait_until_ready();
    let outbox = shop.files().join("outbox");
    reaches_silver(&shop, "ada");
    until("the mail", LIMIT, || mails(&outbox).len() == 1);
    let (_, mail) = mails(&outbox).remove(0);
    let unfolded = mail.replace("\r\n ", " ");
    let header = unfolded.lines().find(|line| line.starts_with("List-Unsubscribe: ")).unwrap();
    let token = header.rsplit_once('/').unwrap().1.trim_end_matches('>').to_owned();
    assert!(shop.get(&format!("/unsubscribe/{token}")).text().unwrap().contains("<form method=\"post\">"));
    assert_eq!(shop.json("/v1/users/ada/email")["may"], true, "a look changes nothing");
    assert_eq!(shop.post(&format!("/unsubscribe/{token}x"), json!({})).status(), 404);
    assert_eq!(shop.post(&format!("/unsubscribe/{token}"), json!({})).status(), 200);
    until("unsubscribed", LIMIT, || shop.json("/v1/users/ada/email")["why"] == "unsubscribed");

    // Gold is worth a mail again: it is decided, and dropped for the right reason.
    let order = json!({"event_type": "order_completed", "user_id": "ada", "order_id": "second", "total_amount": "2000.00", "items": []});
    assert_eq!(shop.post("/v1/events", order).status(), 202);
    until("gold", LIMIT, || shop.json("/v1/users/ada/loyalty")["tier"] == "gold");
    assert!(shop.stop().success());
    let outputs = outputs_in(&embedded_log(&shop.files().join("tillflow-data")));
    let results: Vec<_> = outputs["email_results"].iter().map(|(_, r)| (r["status"].clone(), r["detail"].clone())).collect();
    assert_eq!(results.last(), Some(&(json!("suppressed"), json!("tier_upgraded: unsubscribed"))), "{results:?}");
    assert_eq!((outputs["email_triggers"].len(), mails(&outbox).len()), (1, 1));
}

#[test]
fn a_sender_without_postal_address_ends_the_program_with_its_name() {
    let ended = Tillflow::run().set("listen", "127.0.0.1:0").set("email.outbox", "outbox").finish();
    assert_eq!(ended.code(), 2);
    for part in ["email.sender", "postal_address", "unsubscribe_url"] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
}

#[test]
fn the_demo_writes_each_trigger_as_a_mail() {
    let demo = Tillflow::command(["demo", "--for", "20s", "--headless"]).set("email.outbox", "outbox").finish().ok();
    let summary = demo.json();
    let written = mails(&demo.files.join("outbox"));
    assert!(!written.is_empty(), "{summary}");
    assert_eq!(summary["mails"], json!(written.len()));
    let triggers = usize::try_from(summary["outputs"]["email_triggers"].as_u64().unwrap()).unwrap();
    // The demo ends in the middle of its shop's day: the last triggers may be a moment old.
    assert!(written.len() <= triggers && written.len() * 2 > triggers, "{summary}");
    assert!(written.iter().all(|(_, mail)| mail.contains("\nTo: user") && mail.contains("Subject: ")));
}
