//! A real browser: Chromium without a window, spoken to by its DevTools protocol.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{Message, WebSocket, connect};

use crate::{Process, Scratch, scratch, until, until_some};

/// Nothing of the browser's own reaches for the network.
const QUIET: [&str; 11] = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
];

/// A browser with an empty profile. Killed when dropped.
#[derive(Debug)]
pub struct Browser {
    port: u16,
    // The process ends before its profile is removed.
    _process: Process,
    _profile: Scratch,
}

impl Browser {
    /// Starts one.
    ///
    /// # Panics
    /// When there is none on this machine, or it doesn't answer.
    #[must_use]
    pub fn start() -> Self {
        let profile = scratch("browser");
        let mut process = Process::spawn("browser", profile.path(), &program(), |command| {
            command.args(QUIET).arg(format!("--user-data-dir={}", profile.path().display()));
            if rustix::process::geteuid().is_root() {
                command.arg("--no-sandbox");
            }
            command.env("HOME", profile.path()).arg("about:blank");
        });
        let port = until_some("the browser answers", Duration::from_secs(60), || {
            assert!(process.is_running(), "the browser has ended:\n{}", process.stderr());
            // The browser writes the port it chose into its profile.
            std::fs::read_to_string(profile.join("DevToolsActivePort")).ok()?.lines().next()?.parse().ok()
        });
        Self { port, _process: process, _profile: profile }
    }

    /// Opens a page in a tab of its own and waits until it has loaded.
    ///
    /// # Panics
    /// When the browser can't.
    #[must_use]
    pub fn open(&self, url: &str) -> Page {
        let new = format!("http://127.0.0.1:{}/json/new?about:blank", self.port);
        let tab: Value = reqwest::blocking::Client::new().put(new).send().expect("a tab").json().expect("its address");
        let (socket, _) = connect(tab["webSocketDebuggerUrl"].as_str().expect("its address")).expect("a connection to the tab");
        let mut page = Page { socket, next: 0, errors: Vec::new() };
        page.command("Page.enable", json!({}));
        page.command("Runtime.enable", json!({}));
        page.command("Log.enable", json!({}));
        page.navigate(url);
        page
    }
}

/// A page in a tab.
#[derive(Debug)]
pub struct Page {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    next: u64,
    errors: Vec<String>,
}

impl Page {
    /// Goes to another address and waits until it has loaded.
    pub fn navigate(&mut self, url: &str) {
        let answer = self.command("Page.navigate", json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
        self.wait_until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of an expression of JavaScript; a promise's, once it is there.
    ///
    /// # Panics
    /// When it throws.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.command("Runtime.evaluate", parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn wait_until(&mut self, expression: &str) {
        until(expression, Duration::from_secs(30), || self.evaluate(&format!("!!({expression})")) == json!(true));
    }

    /// What a person can read of it.
    pub fn text(&mut self) -> String {
        self.evaluate("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// The size of the window; a phone's has touch and its narrow layout.
    pub fn resize(&mut self, width: u32, height: u32, phone: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.command("Emulation.setDeviceMetricsOverride", size);
    }

    /// Whether the person prefers dark colours.
    pub fn prefer_dark(&mut self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", features);
    }

    /// A picture of the window as PNG.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn screenshot(&mut self, file: &Path) {
        let answer = self.command("Page.captureScreenshot", json!({ "format": "png" }));
        let data = answer["data"].as_str().expect("a picture");
        let picture = base64::engine::general_purpose::STANDARD.decode(data).expect("a picture");
        std::fs::write(file, picture).expect("a file for the picture");
    }

    /// Exceptions and errors on the page's console so far.
    pub fn errors(&mut self) -> &[String] {
        // Whatever the browser had to say before the answer has been read with it.
        self.evaluate("0");
        &self.errors
    }

    #[track_caller]
    fn command(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let text = json!({ "id": id, "method": method, "params": parameters }).to_string();
        self.socket.send(Message::text(text)).expect("the browser listens");
        loop {
            let message = self.socket.read().expect("the browser answers");
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text).expect("JSON from the browser");
            if answer["id"] == json!(id) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let about = &event["params"];
        let error = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &about["exceptionDetails"],
            Some("Log.entryAdded") if about["entry"]["level"] == "error" => &about["entry"],
            Some("Runtime.consoleAPICalled") if about["type"] == "error" => &about["args"],
            _ => return,
        };
        self.errors.push(error.to_string());
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let found = names.iter().find_map(|name| std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.exists()));
    found.expect("a browser: make setup installs one")
}
