//! An SMTP server that remembers what it was given, and refuses what it is told to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::until;

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// Headers and body, as sent.
    pub data: String,
}

impl Mail {
    /// A header's value, its folded lines joined.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let mut value: Option<String> = None;
        for line in self.data.lines().take_while(|line| !line.is_empty()) {
            match &mut value {
                Some(value) if line.starts_with([' ', '\t']) => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                Some(_) => break,
                None => {
                    let found = line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name));
                    value = found.map(|(_, rest)| rest.trim().to_owned());
                }
            }
        }
        value
    }
}

/// An answer in place of "250 OK" to a message's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SmtpReply {
    /// A refusal such as `451 4.3.0 Try again later`; the message is not kept.
    Refuse(String),
    /// The message is kept, and the connection ends before the answer.
    AcceptAndCut,
}

/// A server on the loopback address.
#[derive(Debug)]
pub struct Smtp {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    mails: Mutex<Vec<Mail>>,
    replies: Mutex<VecDeque<SmtpReply>>,
    logins: Mutex<Vec<String>>,
    down: AtomicBool,
    ended: AtomicBool,
}

impl Smtp {
    /// Starts one.
    ///
    /// # Panics
    /// When no port is to be had.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port for the SMTP server");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { port, shared }
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has accepted so far.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.shared.mails.lock().unwrap().clone()
    }

    /// What clients gave to AUTH, as sent.
    #[must_use]
    pub fn logins(&self) -> Vec<String> {
        self.shared.logins.lock().unwrap().clone()
    }

    /// Waits until it has accepted this many.
    #[track_caller]
    pub fn wait_for(&self, count: usize, limit: Duration) -> Vec<Mail> {
        until(&format!("{count} mails"), limit, || self.shared.mails.lock().unwrap().len() >= count);
        self.mails()
    }

    /// The next message's end is answered with this.
    pub fn reply_next(&self, reply: SmtpReply) {
        self.shared.replies.lock().unwrap().push_back(reply);
    }

    /// An outage: connections end at once.
    pub fn go_down(&self) {
        self.shared.down.store(true, Ordering::SeqCst);
    }

    /// The end of the outage.
    pub fn come_up(&self) {
        self.shared.down.store(false, Ordering::SeqCst);
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    /// One session of RFC 5321, as far as clients that send mail go; none once the client is gone.
    fn serve(&self, client: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(client.try_clone().ok()?);
        let mut client = client;
        let mut say = |line: &str| client.write_all(format!("{line}\r\n").as_bytes()).ok();
        let (mut from, mut to) = (String::new(), Vec::new());
        if self.down.load(Ordering::SeqCst) {
            return say("421 4.3.2 Closing");
        }
        say("220 test server")?;
        while let Some(line) = next_line(&mut lines) {
            if self.down.load(Ordering::SeqCst) {
                return say("421 4.3.2 Closing");
            }
            let (verb, rest) = line.split_once([' ', ':']).unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => say("250-test server\r\n250-8BITMIME\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 10485760")?,
                "HELO" | "NOOP" => say("250 OK")?,
                "AUTH" => {
                    self.logins.lock().unwrap().push(rest.to_owned());
                    say("235 2.7.0 Authenticated")?;
                }
                "MAIL" => {
                    (from, to) = (address(rest), Vec::new());
                    say("250 2.1.0 OK")?;
                }
                "RCPT" => {
                    to.push(address(rest));
                    say("250 2.1.5 OK")?;
                }
                "DATA" => {
                    say("354 Go ahead")?;
                    let mail = Mail { from: from.clone(), to: std::mem::take(&mut to), data: body(&mut lines)? };
                    let reply = self.replies.lock().unwrap().pop_front();
                    match reply {
                        Some(SmtpReply::Refuse(text)) => say(&text)?,
                        Some(SmtpReply::AcceptAndCut) => {
                            self.mails.lock().unwrap().push(mail);
                            return None;
                        }
                        None => {
                            self.mails.lock().unwrap().push(mail);
                            say("250 2.0.0 OK")?;
                        }
                    }
                }
                "RSET" => {
                    to.clear();
                    say("250 OK")?;
                }
                "QUIT" => return say("221 Bye"),
                _ => say("502 5.5.1 Not here")?,
            }
        }
        None
    }
}

fn next_line(lines: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let read = lines.read_until(b'\n', &mut line).ok()?;
    (read > 0).then(|| String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}

/// Up to the line with a single dot; a dot that was doubled on the way is single again.
fn body(lines: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    loop {
        let line = next_line(lines)?;
        if line == "." {
            return Some(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
        text.push('\n');
    }
}

/// `FROM:<a@b> SIZE=…` → `a@b`.
fn address(text: &str) -> String {
    let inner = text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(text, |(address, _)| address).to_owned()
}
