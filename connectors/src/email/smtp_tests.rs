use super::*;
use crate::email::{Templates, render, sender::shop};
use tillflow_schemas::{EmailTrigger, Timestamp};
use tillflow_tests::{Smtp as Server, SmtpReply};

fn to(server: &Server) -> SmtpSettings {
    SmtpSettings { host: Some("127.0.0.1".into()), port: Some(server.port()), tls: SmtpTls::None, rate: 1_000, ..SmtpSettings::default() }
}

fn mail() -> Message {
    let trigger = EmailTrigger {
        trigger_id: "00ff".repeat(8),
        user_id: "u1".into(),
        campaign_id: "birthday".into(),
        template: "birthday".into(),
        to: "ada@example.com".into(),
        data: Default::default(),
        because: String::new(),
        send_after: Timestamp::parse("2026-03-01T11:00:00Z").unwrap(),
    };
    render(&trigger, &Templates::built_in().unwrap(), &shop()).unwrap()
}

#[test]
fn a_mail_arrives_with_its_headers_over_one_connection_and_a_login() {
    let server = Server::start();
    let settings = SmtpSettings { user: Some("shop".into()), password: Some("pass".into()), ..to(&server) };
    let mut smtp = Smtp::new(&settings).unwrap().unwrap();
    for _ in 0..2 {
        assert!(matches!(smtp.send(&mail()).unwrap(), Delivery::Sent { .. }));
    }
    let mails = server.mails();
    assert_eq!((mails.len(), server.logins().len()), (2, 1));
    assert_eq!((mails[0].from.as_str(), mails[0].to[0].as_str()), ("hello@shop.example", "ada@example.com"));
    assert_eq!(mails[0].header("Message-ID").unwrap(), format!("<{}@shop.example>", mail().trigger_id));
    assert_eq!(mails[0].header("List-Unsubscribe-Post").unwrap(), "List-Unsubscribe=One-Click");
}

#[test]
fn what_the_server_says_decides_what_comes_next() {
    let server = Server::start();
    let mut smtp = Smtp::new(&to(&server)).unwrap().unwrap();
    let mut after = |reply: &str| {
        server.reply_next(SmtpReply::Refuse(reply.into()));
        smtp.send(&mail()).unwrap()
    };
    assert!(matches!(after("451 4.3.0 Try again later"), Delivery::TryAgain(why) if why.contains("Try again later")));
    assert!(matches!(after("554 5.6.0 No"), Delivery::Failed(why) if why.contains("No")));
    server.reply_next(SmtpReply::AcceptAndCut);
    assert!(matches!(smtp.send(&mail()).unwrap(), Delivery::Unknown(_)));
    server.go_down();
    assert!(matches!(smtp.send(&mail()).unwrap(), Delivery::TryAgain(_)));
    server.come_up();
    assert!(matches!(smtp.send(&mail()).unwrap(), Delivery::Sent { .. }));
    assert_eq!(server.mails().len(), 2, "the one nobody knows of, and the last");
}

#[test]
fn without_the_protection_asked_for_nothing_is_sent() {
    let server = Server::start();
    let settings = SmtpSettings { tls: SmtpTls::Starttls, ..to(&server) };
    let mut smtp = Smtp::new(&settings).unwrap().unwrap();
    assert!(matches!(smtp.send(&mail()).unwrap(), Delivery::TryAgain(why) if why.contains("STARTTLS")));
    assert!(server.mails().is_empty());
}

#[test]
fn contradictions_are_refused() {
    let login = SmtpSettings { host: Some("mail.example".into()), user: Some("shop".into()), ..SmtpSettings::default() };
    let open = SmtpSettings { password: Some("pass".into()), tls: SmtpTls::None, ..login.clone() };
    for (settings, part) in
        [(login.clone(), "user and password"), (open, "tls: none"), (SmtpSettings { rate: 0, user: None, ..login }, "rate")]
    {
        let error = Smtp::new(&settings).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(Smtp::new(&SmtpSettings::default()).unwrap().is_none());
}
