use super::*;
use crate::email::{Templates, render, sender::shop};
use serde_json::{Value, json};
use tillflow_schemas::{EmailTrigger, Timestamp};

fn trigger(template: &str, data: Value) -> EmailTrigger {
    EmailTrigger {
        trigger_id: "00ff".repeat(8),
        user_id: "u1".into(),
        campaign_id: template.into(),
        template: template.into(),
        to: "ada@example.com".into(),
        data: data.as_object().cloned().unwrap(),
        because: "a test".into(),
        send_after: Timestamp::parse("2026-03-01T11:00:00Z").unwrap(),
    }
}

/// Data as the processor makes it, for every built-in template.
fn samples() -> Vec<EmailTrigger> {
    let tea = json!({"product_id": "tea", "name": "Earl <Grey> & Co", "price": "10.00", "currency": "EUR", "url": "https://shop.example/tea?a=1&b=2"});
    let cup = json!({"product_id": "cup", "name": "Cup", "quantity": 2});
    let items = json!({"first_name": "Ada", "items": [tea, cup]});
    vec![
        trigger("abandoned_cart", items.clone()),
        trigger("abandoned_cart_reminder", items.clone()),
        trigger("review_request", items),
        trigger("win_back", json!({"days": 30, "offer_code": "COMEBACK"})),
        trigger("win_back_last", json!({"days": 90})),
        trigger("browse", json!({"product": tea})),
        trigger("birthday", json!({"first_name": "Ada"})),
        trigger("tier_upgraded", json!({"title": "Tier reached silver", "to": "silver"})),
        trigger("back_in_stock", json!({"product": cup})),
        trigger("price_drop", json!({"product": tea, "new_price": "9.00", "lowest_30d": "9.50", "per_cent": "5"})),
    ]
}

/// Snapshots are files named by what they show.
fn by_name() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn every_built_in_template_makes_a_mail() {
    let templates = Templates::built_in().unwrap();
    let mut all = String::new();
    for sample in samples() {
        let message = render(&sample, &templates, &shop()).unwrap();
        let body = message.html.split_once("<body").unwrap().1;
        all += &format!("=== {}: {}\n{}--- html\n<body{body}\n", sample.template, message.subject, message.text);
        assert!(message.html.contains("1 Harbour Street, Leith") && message.text.contains("1 Harbour Street, Leith"));
        assert!(message.html.contains("https:&#x2f;&#x2f;shop.example&#x2f;unsubscribe&#x2f;"), "{}", message.html);
        assert!(message.text.contains(&message.unsubscribe_url));
        assert!(!message.html.contains("<Grey>"), "escaped");
    }
    assert_eq!(templates.names().count(), samples().len());
    by_name().bind(|| insta::assert_snapshot!("mails", all));
}

#[test]
fn a_mail_is_the_same_bytes_each_time_with_all_headers() {
    let sample = &samples()[0];
    let eml = || String::from_utf8(render(sample, &Templates::built_in().unwrap(), &shop()).unwrap().to_eml().unwrap()).unwrap();
    assert_eq!(eml(), eml());
    by_name().bind(|| insta::assert_snapshot!("eml", eml().replace("\r\n", "\n")));
}

fn outbox(folder: &Path) -> Outbox {
    Outbox::open(folder).unwrap()
}

fn mail(trigger: &EmailTrigger) -> Message {
    render(trigger, &Templates::built_in().unwrap(), &shop()).unwrap()
}

#[test]
fn the_outbox_keeps_each_mail_once_under_its_trigger_s_id() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = outbox(&folder.path().join("outbox"));
    let sample = &samples()[0];
    let path = folder.path().join("outbox").join(format!("{}.eml", sample.trigger_id));
    let mut written = None;
    for _ in 0..3 {
        assert!(matches!(outbox.send(&mail(sample)).unwrap(), Delivery::Sent { .. }));
        let now = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(*written.get_or_insert(now), now, "written once");
    }
    assert!(fs::read_to_string(path).unwrap().contains(&format!("Message-ID: <{}@shop.example>", sample.trigger_id)));
    assert_eq!(fs::read_dir(folder.path().join("outbox")).unwrap().count(), 1);
}

#[test]
fn what_is_no_mail_is_said_and_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let sample = samples().remove(0);
    for id in ["../../etc/passwd", ""] {
        let sent = outbox(folder.path()).send(&mail(&EmailTrigger { trigger_id: id.into(), ..sample.clone() })).unwrap();
        assert!(matches!(&sent, Delivery::Failed(why) if why.contains("trigger_id")), "{sent:?}");
    }
    for (wrong, detail) in [
        (EmailTrigger { template: "nowhere".into(), ..sample.clone() }, "there is none of this name"),
        (EmailTrigger { to: "not an address".into(), ..sample.clone() }, "is not an address"),
        (EmailTrigger { to: "a@b.example\r\nBcc: c@d.example".into(), ..sample.clone() }, "is not an address"),
    ] {
        let found = render(&wrong, &Templates::built_in().unwrap(), &shop()).unwrap_err().to_string();
        assert!(found.contains(detail), "{found}, not {detail}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_can_t_be_written_is_an_error_to_try_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = outbox(&folder.path().join("gone"));
    fs::remove_dir(folder.path().join("gone")).unwrap();
    assert!(matches!(outbox.send(&mail(&samples()[0])), Err(EmailError::Io { .. })));
}
