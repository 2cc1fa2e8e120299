//! Mails by SMTP (RFC 5321): STARTTLS or TLS, with a login where one is configured.
//!
//! Until the message's last line is sent nothing has been handed over, so whatever fails is tried again. After it only
//! the server's answer says what became of it: without one, nobody knows, and it is not sent again.

use super::{Courier, Delivery, EmailError, Message};
use lettre::{
    Address,
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{SmtpConnection, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
    },
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The mail server, as configured.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpSettings {
    /// Its name.
    pub host: Option<String>,
    /// Its port: 587 for STARTTLS, 465 for TLS from the first byte, 25 without either, unless it says otherwise.
    pub port: Option<u16>,
    /// How what is said is protected.
    pub tls: SmtpTls,
    /// Who logs in; nobody where absent.
    pub user: Option<String>,
    /// The password of `user`.
    pub password: Option<String>,
    /// Mails a second, at most.
    pub rate: u32,
    /// Seconds that the server may take for an answer.
    pub timeout_s: u64,
}

impl Default for SmtpSettings {
    fn default() -> Self {
        Self { host: None, port: None, tls: SmtpTls::default(), user: None, password: None, rate: 10, timeout_s: 30 }
    }
}

/// How a connection to the mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SmtpTls {
    /// By STARTTLS, without which nothing is sent.
    #[default]
    Starttls,
    /// From the first byte.
    Implicit,
    /// Not at all: for a server on the same machine.
    None,
}

/// Sends mails to a mail server, over one connection.
pub struct Smtp {
    host: String,
    port: u16,
    tls: SmtpTls,
    login: Option<Credentials>,
    timeout: Duration,
    apart: Duration,
    last: Option<Instant>,
    connection: Option<SmtpConnection>,
}

impl Smtp {
    /// The configured server; nothing is said to it yet. None where no host is configured.
    ///
    /// # Errors
    /// Says what is missing or contradicts itself.
    pub fn new(settings: &SmtpSettings) -> Result<Option<Self>, EmailError> {
        let Some(host) = settings.host.clone() else { return Ok(None) };
        let wrong = |reason: &str| EmailError::Smtp(reason.to_owned());
        let login = match (&settings.user, &settings.password) {
            (Some(user), Some(password)) => Some(Credentials::new(user.clone(), password.clone())),
            (None, None) => None,
            _ => return Err(wrong("user and password go together")),
        };
        if login.is_some() && settings.tls == SmtpTls::None && !["localhost", "127.0.0.1", "::1"].contains(&host.as_str()) {
            return Err(wrong("a password over tls: none could be read by anyone on the way; take starttls or implicit"));
        }
        if settings.rate == 0 || settings.timeout_s == 0 {
            return Err(wrong("rate and timeout_s are at least 1"));
        }
        let port = settings.port.unwrap_or(match settings.tls {
            SmtpTls::Starttls => 587,
            SmtpTls::Implicit => 465,
            SmtpTls::None => 25,
        });
        Ok(Some(Self {
            host,
            port,
            tls: settings.tls,
            login,
            timeout: Duration::from_secs(settings.timeout_s),
            apart: Duration::from_secs(1) / settings.rate,
            last: None,
            connection: None,
        }))
    }

    /// A connection that answers, ready for a mail.
    fn connect(&mut self) -> Result<SmtpConnection, Error> {
        if let Some(mut connection) = self.connection.take()
            && connection.test_connected()
        {
            return Ok(connection);
        }
        let us = ClientId::default();
        let tls = match self.tls {
            SmtpTls::None => None,
            SmtpTls::Starttls | SmtpTls::Implicit => Some(TlsParameters::new(self.host.clone())?),
        };
        let at_once = tls.as_ref().filter(|_| self.tls == SmtpTls::Implicit);
        let mut connection = SmtpConnection::connect((self.host.as_str(), self.port), Some(self.timeout), &us, at_once, None)?;
        if let (SmtpTls::Starttls, Some(tls)) = (self.tls, &tls) {
            connection.starttls(tls, &us)?;
        }
        if let Some(login) = &self.login {
            connection.auth(&[Mechanism::Plain, Mechanism::Login], login)?;
        }
        Ok(connection)
    }

    fn hand_over(&mut self, mail: &[u8], from: &Address, to: &Address) -> Delivery {
        let mut connection = match self.connect() {
            Ok(connection) => connection,
            Err(e) => return Delivery::TryAgain(said(&e)),
        };
        // Refusing the sender is about the shop, not about this mail: mended by a person, so it is tried again.
        if let Err(e) = connection.command(Mail::new(Some(from.clone()), Vec::new())) {
            return Delivery::TryAgain(said(&e));
        }
        if let Err(e) = connection.command(Rcpt::new(to.clone(), Vec::new())) {
            return match e.status().map(u16::from) {
                // No such mailbox, not here, or no name of one.
                Some(550 | 551 | 553) => Delivery::Bounced(said(&e)),
                Some(500..) => Delivery::Failed(said(&e)),
                _ => Delivery::TryAgain(said(&e)),
            };
        }
        if let Err(e) = connection.command(Data) {
            return if e.is_permanent() { Delivery::Failed(said(&e)) } else { Delivery::TryAgain(said(&e)) };
        }
        match connection.message(mail) {
            Ok(answer) => {
                self.connection = Some(connection);
                let words: Vec<&str> = answer.message().collect();
                Delivery::Sent { provider_id: None, detail: format!("{}: {}", self.host, words.join(" ")) }
            }
            Err(e) if e.is_permanent() => Delivery::Failed(said(&e)),
            Err(e) if e.is_transient() => Delivery::TryAgain(said(&e)),
            Err(e) => Delivery::Unknown(format!("the connection ended before the answer: {}", said(&e))),
        }
    }
}

impl Courier for Smtp {
    fn is_repeatable(&self) -> bool {
        false
    }

    fn send(&mut self, message: &Message) -> Result<Delivery, EmailError> {
        let mail = match message.to_eml() {
            Ok(mail) => mail,
            Err(e) => return Ok(Delivery::Failed(e.to_string())),
        };
        if let Some(last) = self.last {
            std::thread::sleep(self.apart.saturating_sub(last.elapsed()));
        }
        self.last = Some(Instant::now());
        Ok(self.hand_over(&mail, &message.from.email, &message.to.email))
    }
}

/// An error with what caused it.
fn said(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "smtp_tests.rs"]
mod tests;
