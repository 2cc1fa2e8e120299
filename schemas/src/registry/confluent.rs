//! A registry that speaks Confluent's REST interface.

use super::{RegistryError, SchemaRegistry, Version, WriterSchema};
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde::Deserialize;
use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// Ids that the registry said it does not know are remembered up to this number.
const MOST_UNKNOWN: usize = 10_000;

/// Schemas that one schema may name, one after the other.
const MOST_REFERENCES: usize = 64;

/// A registry over HTTP. What it answers for an id holds for ever and is asked once; that it does not know an id
/// is remembered for a while only.
pub struct ConfluentRegistry {
    agent: ureq::Agent,
    /// Without credentials and without a slash at its end.
    url: String,
    authorization: Option<String>,
    unknown_for: Duration,
    known: Mutex<HashMap<u32, Arc<WriterSchema>>>,
    unknown: Mutex<HashMap<u32, Instant>>,
}

// By hand: credentials do not belong in a log.
impl fmt::Debug for ConfluentRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfluentRegistry").field("url", &self.url).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(default, rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<ReferenceAnswer>,
}

#[derive(Deserialize)]
struct ReferenceAnswer {
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct VersionAnswer {
    version: u32,
    id: u32,
    schema: String,
}

#[derive(Deserialize)]
struct CheckAnswer {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    error_code: u32,
    #[serde(default)]
    message: String,
}

enum Answer<T> {
    Found(T),
    /// 404: there is no such id, subject or version.
    Absent,
    /// Any other answer that a client is to blame for.
    Refused(String),
}

impl ConfluentRegistry {
    /// The registry at `url`, which may carry basic credentials (`https://key:secret@host`). Each request ends
    /// after `timeout`; an unknown id is asked for again after `unknown_for`.
    ///
    /// # Errors
    /// The URL is none of http or https.
    pub fn new(url: &str, timeout: Duration, unknown_for: Duration) -> Result<Self, RegistryError> {
        let (url, authorization) = without_credentials(url)?;
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier).build();
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // A redirect could carry credentials elsewhere.
            .max_redirects(0)
            .user_agent("tillflow")
            .tls_config(tls)
            .build();
        Ok(Self { agent: config.into(), url, authorization, unknown_for, known: Mutex::default(), unknown: Mutex::default() })
    }

    fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<Answer<T>, RegistryError> {
        let mut request = self.agent.get(format!("{}{path}", self.url)).header("Accept", "application/vnd.schemaregistry.v1+json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        self.answer(request.call())
    }

    fn post<T: for<'de> Deserialize<'de>>(&self, path: &str, schema: &str) -> Result<Answer<T>, RegistryError> {
        let mut request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("Accept", "application/vnd.schemaregistry.v1+json")
            .header("Content-Type", "application/vnd.schemaregistry.v1+json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        self.answer(request.send(serde_json::json!({ "schema": schema }).to_string()))
    }

    fn answer<T: for<'de> Deserialize<'de>>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer<T>, RegistryError> {
        let mut response = response.map_err(|e| self.unreachable(e.to_string()))?;
        let status = response.status().as_u16();
        let body = response.body_mut().read_to_string().map_err(|e| self.unreachable(e.to_string()))?;
        if (200..300).contains(&status) {
            let answer = serde_json::from_str(&body);
            return answer.map(Answer::Found).map_err(|e| self.unreachable(format!("answers what a registry would not: {e}")));
        }
        let failure = serde_json::from_str::<Failure>(&body).ok();
        let words = match &failure {
            Some(f) if !f.message.is_empty() => format!("{status}: {}", crate::error::shorten_to(200, &f.message)),
            _ => format!("{status}"),
        };
        match (status, failure) {
            // A 404 without the registry's own code is some other server, or a wrong path.
            (404, Some(f)) if (40401..=40499).contains(&f.error_code) => Ok(Answer::Absent),
            (404, _) => Err(self.unreachable("404: no registry there".into())),
            (429 | 408 | 500.., _) => Err(self.unreachable(words)),
            (300..400, _) => Err(self.unreachable(format!("{status}: redirects are not followed"))),
            _ => Ok(Answer::Refused(words)),
        }
    }

    fn ask(&self, id: u32) -> Result<Option<WriterSchema>, RegistryError> {
        let answer = match self.get::<SchemaAnswer>(&format!("/schemas/ids/{id}"))? {
            Answer::Found(answer) => answer,
            Answer::Absent => return Ok(None),
            Answer::Refused(reason) => return Err(self.refused(reason)),
        };
        let mut open = answer.references;
        let mut met = Vec::new();
        let mut references = Vec::new();
        while let Some(reference) = open.pop() {
            let name = (reference.subject, reference.version);
            if met.contains(&name) {
                continue;
            }
            if met.len() >= MOST_REFERENCES {
                return Err(self.refused(format!("schema {id} refers to more than {MOST_REFERENCES} others")));
            }
            let path = format!("/subjects/{}/versions/{}", encoded(&name.0), name.1);
            match self.get::<SchemaAnswer>(&path)? {
                Answer::Found(named) => {
                    references.push(named.schema);
                    open.extend(named.references);
                }
                Answer::Absent => return Err(self.refused(format!("schema {id} refers to {} {}, which is not there", name.0, name.1))),
                Answer::Refused(reason) => return Err(self.refused(reason)),
            }
            met.push(name);
        }
        Ok(Some(WriterSchema { kind: answer.kind.unwrap_or_else(|| "AVRO".into()), text: answer.schema, references }))
    }

    fn unreachable(&self, reason: String) -> RegistryError {
        RegistryError::Unreachable { url: self.url.clone(), reason }
    }

    fn refused(&self, reason: String) -> RegistryError {
        RegistryError::Refused { url: self.url.clone(), reason }
    }
}

impl SchemaRegistry for ConfluentRegistry {
    fn schema(&self, id: u32) -> Result<Option<Arc<WriterSchema>>, RegistryError> {
        if let Some(schema) = self.known.lock().get(&id) {
            return Ok(Some(schema.clone()));
        }
        if self.unknown.lock().get(&id).is_some_and(|since| since.elapsed() < self.unknown_for) {
            return Ok(None);
        }
        // No lock is held while waiting: two threads may ask for the same, and get the same.
        let schema = self.ask(id)?.map(Arc::new);
        match &schema {
            Some(schema) => {
                self.known.lock().insert(id, schema.clone());
            }
            None => {
                let mut unknown = self.unknown.lock();
                if unknown.len() >= MOST_UNKNOWN {
                    unknown.clear();
                }
                unknown.insert(id, Instant::now());
            }
        }
        Ok(schema)
    }

    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let subject = encoded(subject);
        let reason = match self.post::<IdAnswer>(&format!("/subjects/{subject}/versions"), schema)? {
            Answer::Found(answer) => return Ok(answer.id),
            Answer::Absent => return Err(self.unreachable("404: no registry there".into())),
            Answer::Refused(reason) => reason,
        };
        // Who may not register may still use what somebody else registered.
        match self.post::<IdAnswer>(&format!("/subjects/{subject}"), schema)? {
            Answer::Found(answer) => Ok(answer.id),
            Answer::Absent | Answer::Refused(_) => Err(self.refused(reason)),
        }
    }

    fn check(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError> {
        let path = format!("/compatibility/subjects/{}/versions/latest?verbose=true", encoded(subject));
        match self.post::<CheckAnswer>(&path, schema)? {
            Answer::Found(answer) if answer.is_compatible => Ok(Vec::new()),
            Answer::Found(answer) if answer.messages.is_empty() => Ok(vec!["not compatible".into()]),
            Answer::Found(answer) => Ok(answer.messages),
            // Nothing is registered yet, so anything may be.
            Answer::Absent => Ok(Vec::new()),
            Answer::Refused(reason) => Err(self.refused(reason)),
        }
    }

    fn latest(&self, subject: &str) -> Result<Option<Version>, RegistryError> {
        match self.get::<VersionAnswer>(&format!("/subjects/{}/versions/latest", encoded(subject)))? {
            Answer::Found(v) => Ok(Some(Version { version: v.version, id: v.id, schema: v.schema })),
            Answer::Absent => Ok(None),
            Answer::Refused(reason) => Err(self.refused(reason)),
        }
    }
}

/// The URL without what stands before the `@`, and the header that says the same.
fn without_credentials(url: &str) -> Result<(String, Option<String>), RegistryError> {
    let wrong = |reason: &str| RegistryError::Refused { url: "registry.url".into(), reason: reason.to_owned() };
    let (scheme, rest) = url.trim().split_once("://").ok_or_else(|| wrong("not a URL such as http://localhost:8081"))?;
    if !matches!(scheme, "http" | "https") {
        return Err(wrong("neither http nor https"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (credentials, host) = authority.rsplit_once('@').map_or((None, authority), |(c, host)| (Some(c), host));
    if host.is_empty() {
        return Err(wrong("names no host"));
    }
    let authorization = credentials.map(|c| format!("Basic {}", STANDARD.encode(decoded(c))));
    Ok((format!("{scheme}://{host}{}", path.trim_end_matches('/')), authorization))
}

/// Percent-encoded bytes as they are meant.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// A subject as one segment of a path.
fn encoded(subject: &str) -> String {
    subject.bytes().fold(String::new(), |mut out, b| {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
        out
    })
}

#[cfg(test)]
#[path = "confluent_tests.rs"]
mod tests;
