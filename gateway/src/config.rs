//! The gateway's part of the configuration.

use crate::GatewayError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, net::SocketAddr};
use tokio::net::TcpListener;

/// Where the gateway listens, who may ask it what, and how much it takes at once.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Address and port of everything over HTTP. Beyond loopback it needs `keys`.
    pub listen: String,
    /// Where other instances ask this one about the keys it owns: `host:port`, or an `http://` address. Where absent,
    /// `listen`, if that is an address that others may be given.
    pub advertised: Option<String>,
    /// Another address for `/healthz`, `/readyz` and `/metrics` alone; these three ask for no key.
    pub health_listen: Option<String>,
    /// Who may do what. Without any, everyone on this machine may do everything.
    pub keys: Keys,
    /// Origins whose pages may call the gateway, such as `https://shop.example`; `*` is any. On loopback, pages from
    /// loopback and from files may always.
    pub origins: Vec<String>,
    /// How much the gateway takes at once.
    pub limits: Limits,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            advertised: None,
            health_listen: None,
            keys: Keys::default(),
            origins: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Who may do what. Each of the first three is one key or a list of them, so that keys can be changed without a gap.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// May report behaviour (views, carts, checkout), nothing else: for browsers and apps, where anyone can read it.
    #[serde(deserialize_with = "one_or_many")]
    pub write: Vec<Secret>,
    /// May also report orders, refunds, stock and the catalogue, and ask about every user: for the shop's servers.
    #[serde(deserialize_with = "one_or_many")]
    pub server: Vec<Secret>,
    /// May also see the console.
    #[serde(deserialize_with = "one_or_many")]
    pub admin: Vec<Secret>,
    /// Signs user tokens (JWT, HS256, `sub` the user id, `exp`): a shopper's browser asks with one about itself.
    pub user_secret: Option<Secret>,
    /// Signs webhooks (`x-tillflow-signature`): what a system of the shop's sends with it counts as sent with a server key.
    pub webhook_secret: Option<Secret>,
    /// Signs quotes, the same for all instances; where absent, quotes hold until the process that gave them ends.
    pub quote_secret: Option<Secret>,
}

impl Keys {
    /// Whether any key is configured, so that one must be shown.
    pub fn any(&self) -> bool {
        !(self.write.is_empty()
            && self.server.is_empty()
            && self.admin.is_empty()
            && self.user_secret.is_none()
            && self.webhook_secret.is_none())
    }

    /// With which key this instance asks another on a caller's behalf: all instances have the same.
    pub(crate) fn own(&self) -> Option<&Secret> {
        self.server.first().or(self.admin.first())
    }
}

/// How much the gateway takes at once. What is beyond is answered with 413, 429 or 503, never queued without end.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one request's body.
    pub body_bytes: usize,
    /// Bytes of one record, as written to the log. Kafka's own default is a little over 1 MB.
    pub record_bytes: usize,
    /// Records in one request.
    pub records: usize,
    /// Requests whose records the log has not confirmed yet.
    pub appends_in_flight: usize,
    /// Bytes of all bodies being read or waiting for the log.
    pub bytes_in_flight: usize,
    /// Queries running.
    pub queries_in_flight: usize,
    /// Open connections.
    pub connections: usize,
    /// Open WebSockets and event streams.
    pub sockets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            record_bytes: 1_000_000,
            records: 1_000,
            appends_in_flight: 1_024,
            bytes_in_flight: 128 << 20,
            queries_in_flight: 64,
            connections: 10_000,
            sockets: 8_000,
        }
    }
}

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("<secret>")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        if text.trim() != text || text.is_empty() {
            return Err(serde::de::Error::custom("a key is neither empty nor begins or ends with a blank"));
        }
        Ok(Self(text))
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Secret>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a key or a list of keys")]
    enum Keys {
        One(Secret),
        Many(Vec<Secret>),
    }
    Ok(match Keys::deserialize(d)? {
        Keys::One(key) => vec![key],
        Keys::Many(keys) => keys,
    })
}

impl GatewayConfig {
    /// Opens the configured addresses.
    ///
    /// # Errors
    /// When one can't be had, or lies beyond loopback while no keys are configured.
    pub async fn bind(&self) -> Result<(TcpListener, Option<TcpListener>), GatewayError> {
        let listener = open(&self.listen).await?;
        self.check(listener.local_addr()?)?;
        let health = match &self.health_listen {
            Some(address) => Some(open(address).await?),
            None => None,
        };
        Ok((listener, health))
    }

    /// Where other instances ask this one, as a URL; `None` where nothing says so, such as when it listens on all addresses.
    ///
    /// # Errors
    /// When what is configured can't be asked.
    pub fn address(&self) -> Result<Option<String>, GatewayError> {
        let Some(given) = &self.advertised else {
            let stated = match self.listen.parse::<SocketAddr>() {
                Ok(address) => !address.ip().is_unspecified() && address.port() != 0,
                Err(_) => !self.listen.ends_with(":0"),
            };
            return Ok(stated.then(|| format!("http://{}", self.listen)));
        };
        let wrong = || GatewayError::Advertised(given.clone());
        let text = if given.contains("://") { given.clone() } else { format!("http://{given}") };
        let url = reqwest::Url::parse(&text).map_err(|_| wrong())?;
        let is_bare = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        let is_whole = given.contains("://") || given.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|p| p != 0));
        if url.scheme() == "http" && url.has_host() && is_bare && is_whole {
            Ok(Some(text.trim_end_matches('/').to_owned()))
        } else {
            Err(wrong())
        }
    }

    /// Looks at the addresses as they are written, without opening any. What a name stands for is seen once it is opened.
    ///
    /// # Errors
    /// When one is no address, others could not ask there, or it lies beyond loopback while no keys are configured.
    pub fn check_addresses(&self) -> Result<(), GatewayError> {
        let is_address = |text: &str| text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        for (key, listen) in [("listen", Some(&self.listen)), ("health_listen", self.health_listen.as_ref())] {
            if let Some(listen) = listen.filter(|text| !is_address(text)) {
                return Err(GatewayError::Address { key, given: listen.clone() });
            }
        }
        self.address()?;
        self.listen.parse().map_or(Ok(()), |address| self.check(address))
    }

    /// Refuses an address that others can reach while nothing says who may do what.
    pub fn check(&self, address: SocketAddr) -> Result<(), GatewayError> {
        if address.ip().is_loopback() || self.keys.any() { Ok(()) } else { Err(GatewayError::Open(address)) }
    }
}

async fn open(address: &str) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address).await.map_err(|error| GatewayError::Listen { address: address.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_or_several_and_no_key_is_ever_printed() {
        let config: GatewayConfig = serde_json::from_value(json!({ "keys": { "write": "w-1", "server": ["s-1", "s-2"] } })).unwrap();
        assert_eq!(config.keys.write, vec!["w-1".into()]);
        assert_eq!(config.keys.server.len(), 2);
        let shown = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("w-1") && !shown.contains("s-2"), "{shown}");
    }

    #[test]
    fn a_mistyped_key_is_an_error_that_names_it() {
        let error = serde_json::from_value::<GatewayConfig>(json!({ "limits": { "sokets": 1 } })).unwrap_err().to_string();
        assert!(error.contains("sokets"), "{error}");
        assert!(serde_json::from_value::<GatewayConfig>(json!({ "keys": { "write": "" } })).is_err());
    }

    #[test]
    fn where_others_ask_is_stated_or_follows_from_where_it_listens_if_that_is_one_address() {
        let address = |listen: &str, advertised: Option<&str>| {
            let config = GatewayConfig { listen: listen.into(), advertised: advertised.map(Into::into), ..GatewayConfig::default() };
            config.address().map_err(|e| e.to_string())
        };
        let stated = |url: &str| Ok(Some(url.to_owned()));
        assert_eq!(address("127.0.0.1:8080", None), stated("http://127.0.0.1:8080"));
        assert_eq!(address("till-0.shop:8080", None), stated("http://till-0.shop:8080"));
        assert_eq!(address("[::1]:8080", None), stated("http://[::1]:8080"));
        for listen in ["0.0.0.0:8080", "[::]:8080", "127.0.0.1:0", "localhost:0"] {
            assert_eq!(address(listen, None), Ok(None), "{listen}");
        }
        assert_eq!(address("0.0.0.0:8080", Some("till-0.till:8080")), stated("http://till-0.till:8080"));
        assert_eq!(address("0.0.0.0:8080", Some("http://till-0.till/shop/")), stated("http://till-0.till/shop"));
        for wrong in ["", "till-0", "till-0:http", "https://till-0:8080", "http://me:secret@till-0:8080", "till-0:0", "till-0:8080?x=1"] {
            let error = address("0.0.0.0:8080", Some(wrong)).unwrap_err();
            assert!(error.contains("advertised"), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        let check = |listen: &str, health: Option<&str>| {
            let config = GatewayConfig { listen: listen.into(), health_listen: health.map(Into::into), ..GatewayConfig::default() };
            config.check_addresses().map_err(|e| e.to_string())
        };
        for (listen, health) in [("127.0.0.1:0", None), ("[::1]:8080", Some("0.0.0.0:9090")), ("till-0.shop:8080", None)] {
            assert_eq!(check(listen, health), Ok(()), "{listen}");
        }
        for (listen, health, words) in [
            ("8080", None, "listen: '8080'"),
            (":8080", None, "listen: ':8080'"),
            ("127.0.0.1:http", None, "listen: '127.0.0.1:http'"),
            ("127.0.0.1:0", Some("9090"), "health_listen: '9090'"),
        ] {
            let error = check(listen, health).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[tokio::test]
    async fn beyond_loopback_only_with_keys() {
        let mut config = GatewayConfig { listen: "0.0.0.0:0".into(), ..GatewayConfig::default() };
        for error in [config.check_addresses().unwrap_err(), config.bind().await.unwrap_err()] {
            assert!(error.to_string().contains("keys"), "{error}");
        }
        config.keys.server = vec!["s".into()];
        config.check_addresses().unwrap();
        config.bind().await.unwrap();
    }
}
