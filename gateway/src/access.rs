//! Who asks, and whether they may: static keys, user tokens, and where a page that calls comes from.

use crate::{App, GatewayConfig, config::Secret, error::Problem};
use axum::{
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tillflow_schemas::Timestamp;

/// What a key allows; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Reporting behaviour.
    Write,
    /// Everything a shop's server does.
    Server,
    /// The console.
    Admin,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// None without a key.
    pub level: Option<Level>,
    /// The shopper a user token is about.
    pub user: Option<String>,
}

impl Caller {
    pub fn may(&self, level: Level) -> bool {
        self.level >= Some(level)
    }

    /// # Errors
    /// 401 without a key, 403 with a lesser one.
    pub fn needs(&self, level: Level) -> Result<(), Problem> {
        if self.may(level) {
            return Ok(());
        }
        let name = match level {
            Level::Write => "write",
            Level::Server => "server",
            Level::Admin => "admin",
        };
        Err(match self.level {
            None => Problem::new(StatusCode::UNAUTHORIZED, "no_key", format!("send a {name} key: Authorization: Bearer <key>")),
            Some(_) => Problem::new(StatusCode::FORBIDDEN, "not_allowed", format!("this needs a {name} key")),
        })
    }

    /// # Errors
    /// Unless a server asks, or the user itself.
    pub fn needs_user(&self, user: &str) -> Result<(), Problem> {
        if self.user.as_deref() == Some(user) { Ok(()) } else { self.needs(Level::Server) }
    }
}

/// The configured keys, as digests: comparing those tells nothing of a key by its timing.
pub(crate) struct Keyring {
    keys: Vec<([u8; 32], Level)>,
    user_secret: Option<Secret>,
    webhook_secret: Option<Secret>,
    open: bool,
}

/// A webhook's signature: `t=<seconds since 1970>,v1=<hexadecimal HMAC-SHA-256 of "<t>.<body>">`, the form that many
/// shops' systems know.
pub(crate) const SIGNATURE: &str = "x-tillflow-signature";
/// How old, or how far ahead, a signature may be: one that was overheard is soon of no use.
const SIGNED_WITHIN_S: i64 = 5 * 60;

impl Keyring {
    pub fn new(config: &GatewayConfig) -> Self {
        let keys = &config.keys;
        let level = |keys: &[Secret], level| keys.iter().map(move |k| (digest(k.reveal()), level)).collect::<Vec<_>>();
        Self {
            keys: [level(&keys.write, Level::Write), level(&keys.server, Level::Server), level(&keys.admin, Level::Admin)].concat(),
            user_secret: keys.user_secret.clone(),
            webhook_secret: keys.webhook_secret.clone(),
            open: !keys.any(),
        }
    }

    /// Who a request's key or token belongs to.
    pub fn caller(&self, headers: &HeaderMap, uri: &Uri, now: Timestamp) -> Result<Caller, Problem> {
        if self.open {
            return Ok(Caller { level: Some(Level::Admin), user: None });
        }
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            return match value.to_str().ok().and_then(|v| v.split_once(' ')) {
                Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => self.who(key.trim(), now),
                // Segment's SDKs, and schema registry clients: the key is the user, or the password.
                Some((scheme, key)) if scheme.eq_ignore_ascii_case("basic") => self.who(&basic(key.trim())?, now),
                _ => Err(denied("the Authorization header is not of the form: Bearer <key>")),
            };
        }
        // Browsers set no headers on WebSockets, event streams and beacons; what stands in an address is read by too
        // many, so only what may be public anyway goes there.
        let Some(key) = Asked::of(uri).key else { return Ok(Caller::default()) };
        let caller = self.who(&key, now)?;
        if caller.may(Level::Server) {
            return Err(denied("only write keys and user tokens may stand in an address"));
        }
        Ok(caller)
    }

    /// Whether a request says that its body is signed.
    pub fn is_signed(headers: &HeaderMap) -> bool {
        headers.contains_key(SIGNATURE)
    }

    /// Who signed a body: one who may do what a server may.
    pub fn signer(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Caller, Problem> {
        let secret = self.webhook_secret.as_ref().ok_or_else(|| denied("signed webhooks need keys.webhook_secret"))?;
        let given = headers.get(SIGNATURE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let part = |name: &str| given.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        let (Some(time), Some(signature)) = (part("t"), part("v1").and_then(unhex)) else {
            return Err(denied(format!("{SIGNATURE} is not of the form t=<seconds>,v1=<hexadecimal>")));
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).map_err(|_| denied("the secret can't be used"))?;
        mac.update(time.as_bytes());
        mac.update(b".");
        mac.update(body);
        mac.verify_slice(&signature).map_err(|_| denied("the webhook's signature is wrong"))?;
        let seconds: i64 = time.parse().map_err(|_| denied("the signature's time is no number"))?;
        if (now.millis().div_euclid(1000) - seconds).abs() > SIGNED_WITHIN_S {
            return Err(denied("the signature is older than five minutes, or of the future"));
        }
        Ok(Caller { level: Some(Level::Server), user: None })
    }

    /// Who a write key in a body belongs to; other keys may not stand there.
    pub fn known(&self, key: &str) -> Result<Caller, Problem> {
        let caller = self.who(key, Timestamp::wall())?;
        if caller.may(Level::Server) { Err(denied("only a write key may stand in a body")) } else { Ok(caller) }
    }

    fn who(&self, key: &str, now: Timestamp) -> Result<Caller, Problem> {
        let given = digest(key);
        if let Some(level) = self.keys.iter().filter(|(known, _)| *known == given).map(|(_, level)| *level).max() {
            return Ok(Caller { level: Some(level), user: None });
        }
        match &self.user_secret {
            Some(secret) if key.split('.').count() == 3 => {
                user_of(key, secret, now).map(|user| Caller { level: Some(Level::Write), user: Some(user) }).map_err(denied)
            }
            _ => Err(denied("the key is not known")),
        }
    }
}

/// A key in the address.
#[derive(Default, Deserialize)]
struct Asked {
    key: Option<String>,
}

impl Asked {
    fn of(uri: &Uri) -> Self {
        Query::try_from_uri(uri).map(|Query(asked)| asked).unwrap_or_default()
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |n, d| n << 4 | d)).collect())
}

/// The key in basic credentials: the password, or the user where there is none.
fn basic(credentials: &str) -> Result<String, Problem> {
    let text = STANDARD.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (user, password) =
        text.as_deref().and_then(|text| text.split_once(':')).ok_or_else(|| denied("the basic credentials are not user:password"))?;
    Ok(if password.is_empty() { user } else { password }.to_owned())
}

fn denied(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "bad_key", message)
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The `sub` of a JSON Web Token (RFC 7519) signed with HS256. Other algorithms, `none` above all, are refused.
fn user_of(token: &str, secret: &Secret, now: Timestamp) -> Result<String, &'static str> {
    #[derive(Deserialize)]
    struct Head {
        alg: String,
    }
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
        exp: i64,
        nbf: Option<i64>,
    }
    let (signed, signature) = token.rsplit_once('.').ok_or("not a token")?;
    let (head, claims) = signed.split_once('.').ok_or("not a token")?;
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "the token is not base64url without padding");
    let head: Head = serde_json::from_slice(&part(head)?).map_err(|_| "the token's header is not JSON with an alg")?;
    if head.alg != "HS256" {
        return Err("the token's algorithm is not HS256");
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).map_err(|_| "the secret can't be used")?;
    mac.update(signed.as_bytes());
    mac.verify_slice(&part(signature)?).map_err(|_| "the token's signature is wrong")?;
    let claims: Claims = serde_json::from_slice(&part(claims)?).map_err(|_| "the token's claims are not JSON with sub and exp")?;
    let seconds = now.millis().div_euclid(1000);
    if claims.exp <= seconds {
        return Err("the token has expired");
    }
    if claims.nbf.is_some_and(|from| from > seconds) {
        return Err("the token is not valid yet");
    }
    Ok(claims.sub)
}

/// Whose pages may call.
pub(crate) struct Origins {
    listed: Vec<String>,
    loopback: bool,
    open: bool,
}

impl Origins {
    pub fn new(config: &GatewayConfig, loopback: bool) -> Self {
        let listed = config.origins.iter().map(|o| o.trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { listed, loopback, open: !config.keys.any() }
    }

    /// Whether a page of that origin may call; `host` is what the request says we are called.
    fn passes(&self, origin: &str, host: Option<&str>) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self.loopback && (origin == "null" || origin == "file://" || name_of(&origin).is_some_and(is_loopback)) {
            return true;
        }
        let same = origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host.map(str::to_ascii_lowercase).as_deref());
        // Without keys, a foreign name that resolves to this machine must not make a page "the same" (DNS rebinding).
        (same && !self.open) || self.listed.iter().any(|o| *o == origin || o == "*")
    }

    /// Whether we may be called that. Without keys only names that no foreign page can claim: a page whose name was made
    /// to resolve to this machine sends that name.
    fn answers_to(&self, host: Option<&str>) -> bool {
        let Some(host) = host.filter(|_| self.open) else { return true };
        let name = host_name(host);
        is_loopback(name)
            || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
            || self.listed.iter().any(|o| o == "*" || name_of(o).is_some_and(|n| n.eq_ignore_ascii_case(name)))
    }
}

fn name_of(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| host_name(authority))
}

fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

fn is_loopback(name: &str) -> bool {
    let name = name.trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Lets a request in: its origin is checked first, then its key, which handlers find as [`Caller`].
pub(crate) async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let (host, origin) = (text(request.headers(), header::HOST), text(request.headers(), header::ORIGIN));
    if !app.origins.answers_to(host.as_deref()) {
        let message = "this name is not known here: without keys, use localhost or an address, or list the name's origin in origins";
        return Problem::new(StatusCode::FORBIDDEN, "host", message).into_response();
    }
    if let Some(origin) = origin.as_deref().filter(|o| !app.origins.passes(o, host.as_deref())) {
        let message = format!("pages of {} may not call; list it in origins", tillflow_schemas::shorten(origin));
        return Problem::new(StatusCode::FORBIDDEN, "origin", message).into_response();
    }
    let mut response = if request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        preflight(request.headers())
    } else {
        match app.keyring.caller(request.headers(), request.uri(), Timestamp::wall()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(problem) => problem.into_response(),
        }
    };
    if let Some(origin) = origin.and_then(|o| HeaderValue::from_str(&o).ok()) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after, x-request-id"));
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
    headers
        .insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type, last-event-id, x-request-id"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    if asked.contains_key("access-control-request-private-network") {
        headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Keys;

    fn keyed() -> GatewayConfig {
        let keys = Keys {
            write: vec!["w".into()],
            server: vec!["s".into()],
            admin: vec!["a".into()],
            user_secret: Some("your-256-bit-secret".into()),
            webhook_secret: Some("hook".into()),
            quote_secret: None,
        };
        GatewayConfig { keys, ..GatewayConfig::default() }
    }

    fn ask(authorization: Option<&str>, uri: &str) -> Result<Caller, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        Keyring::new(&keyed()).caller(&headers, &uri.parse().unwrap(), Timestamp::from_millis(1_600_000_000_000))
    }

    fn token(head: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(b"your-256-bit-secret").unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    #[test]
    fn each_key_has_its_level_and_an_unknown_one_none() {
        assert_eq!(ask(Some("Bearer w"), "/").unwrap().level, Some(Level::Write));
        assert_eq!(ask(Some("bearer s"), "/").unwrap().level, Some(Level::Server));
        assert_eq!(ask(Some("Bearer a"), "/").unwrap().level, Some(Level::Admin));
        assert_eq!(ask(None, "/").unwrap(), Caller::default());
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(ask(Some(&basic("w:")), "/").unwrap().level, Some(Level::Write));
        assert_eq!(ask(Some(&basic("anyone:s")), "/").unwrap().level, Some(Level::Server));
        for wrong in ["Bearer x", "Basic w", "w", "Bearer", &basic("x:"), &basic("w")] {
            assert_eq!(ask(Some(wrong), "/").unwrap_err().status, StatusCode::UNAUTHORIZED, "{wrong}");
        }
    }

    #[test]
    fn a_signed_body_is_a_server_s_until_it_is_changed_or_old() {
        let now = Timestamp::from_millis(1_600_000_000_000);
        let sign = |secret: &str, time: i64, body: &str| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
            mac.update(format!("{time}.{body}").as_bytes());
            let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
            format!("t={time},v1={hex}")
        };
        let ask = |signature: &str, body: &str| {
            let headers = HeaderMap::from_iter([(SIGNATURE.parse().unwrap(), signature.parse().unwrap())]);
            Keyring::new(&keyed()).signer(&headers, body.as_bytes(), now)
        };
        let good = sign("hook", 1_600_000_000, "{}");
        assert_eq!(ask(&good, "{}").unwrap().level, Some(Level::Server));
        for (signature, body) in [
            (good.as_str(), "{ }"),
            (&sign("other", 1_600_000_000, "{}"), "{}"),
            (&sign("hook", 1_599_999_000, "{}"), "{}"),
            (&sign("hook", 1_600_001_000, "{}"), "{}"),
            ("t=1600000000", "{}"),
            ("v1=zz,t=1600000000", "{}"),
            ("", "{}"),
        ] {
            assert_eq!(ask(signature, body).unwrap_err().status, StatusCode::UNAUTHORIZED, "{signature}");
        }
    }

    #[test]
    fn an_address_carries_a_write_key_but_never_a_server_key() {
        assert_eq!(ask(None, "/v1/events?key=w").unwrap().level, Some(Level::Write));
        assert_eq!(ask(None, "/v1/events?key=s").unwrap_err().status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn a_user_token_is_its_user_until_it_expires() {
        let head = r#"{"alg":"HS256","typ":"JWT"}"#;
        let good = token(head, r#"{"sub":"u1","exp":1600000001}"#);
        let caller = ask(Some(&format!("Bearer {good}")), "/").unwrap();
        assert_eq!(caller, Caller { level: Some(Level::Write), user: Some("u1".into()) });
        assert!(caller.needs_user("u1").is_ok() && caller.needs_user("u2").is_err());
        let changed = format!("{}x.{}", &good[..good.len() - 44], &good[good.len() - 43..]);
        for wrong in [
            token(head, r#"{"sub":"u1","exp":1600000000}"#),
            token(head, r#"{"sub":"u1"}"#),
            token(head, r#"{"sub":"u1","exp":1700000000,"nbf":1600000009}"#),
            token(r#"{"alg":"none"}"#, r#"{"sub":"u1","exp":1700000000}"#),
            changed,
            "a.b.c".into(),
            "..".into(),
        ] {
            assert_eq!(ask(Some(&format!("Bearer {wrong}")), "/").unwrap_err().status, StatusCode::UNAUTHORIZED, "{wrong}");
        }
    }

    #[test]
    fn on_loopback_pages_of_this_machine_and_files_pass_and_others_only_when_listed() {
        let mut config = GatewayConfig::default();
        let host = Some("127.0.0.1:8080");
        for (origin, passes) in [
            ("null", true),
            ("http://localhost:3000", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:5173", true),
            ("https://evil.example", false),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
        ] {
            assert_eq!(Origins::new(&config, true).passes(origin, host), passes, "{origin}");
        }
        config.origins = vec!["https://Shop.example/".into()];
        assert!(Origins::new(&config, true).passes("https://shop.example", host));
        assert!(!Origins::new(&keyed(), false).passes("null", Some("flow.example")));
        assert!(Origins::new(&keyed(), false).passes("https://flow.example", Some("flow.example")));
    }

    #[test]
    fn without_keys_a_name_that_was_made_to_resolve_here_is_refused() {
        let open = Origins::new(&GatewayConfig::default(), true);
        for (host, answers) in [
            (None, true),
            (Some("localhost:8080"), true),
            (Some("127.0.0.1:8080"), true),
            (Some("[::1]:8080"), true),
            (Some("evil.example:8080"), false),
        ] {
            assert_eq!(open.answers_to(host), answers, "{host:?}");
        }
        assert!(!open.passes("http://evil.example:8080", Some("evil.example:8080")));
        assert!(Origins::new(&keyed(), false).answers_to(Some("flow.example")));
    }
}
