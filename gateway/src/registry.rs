//! The built-in schema registry, in Confluent's REST form: what its serializers and deserializers ask for, and what a
//! person needs to look after it.

use crate::{
    App,
    access::{Caller, Level},
    error::Problem,
    ingest,
};
use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{fs, io, path::PathBuf, sync::Arc};
use tillflow_schemas::{
    BuiltInRegistry, RegistryError, SchemaRegistry,
    registry::{Compatibility, RegistryState, Version},
};

/// The built-in registry, kept in a file.
#[derive(Debug)]
pub struct SchemaStore {
    registry: Arc<BuiltInRegistry>,
    path: PathBuf,
    /// One writes at a time.
    writing: parking_lot::Mutex<()>,
}

impl SchemaStore {
    /// The registry kept in `path`; empty where there is no such file.
    ///
    /// # Errors
    /// The file can't be read, or is something else.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let state: RegistryState = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => RegistryState::default(),
            Err(e) => return Err(e),
        };
        Ok(Self { registry: Arc::new(BuiltInRegistry::new(state)), path, writing: parking_lot::Mutex::new(()) })
    }

    /// The registry, for a codec.
    pub fn registry(&self) -> Arc<BuiltInRegistry> {
        self.registry.clone()
    }

    /// Keeps what the registry knows now, whole or not at all.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self) -> io::Result<()> {
        let _writing = self.writing.lock();
        let beside = self.path.with_extension("part");
        fs::write(&beside, serde_json::to_vec_pretty(&self.registry.state())?)?;
        fs::rename(beside, &self.path)
    }
}

/// An error in Confluent's form, which clients look into, and in ours.
pub(crate) struct Refusal(StatusCode, u32, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, code, message) = self;
        let problem = Problem::new(status, "registry", message.clone());
        let mut body = problem.body();
        if let Some(body) = body.as_object_mut() {
            body.extend([("error_code".into(), json!(code)), ("message".into(), json!(message))]);
        }
        problem.with_body(body)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem.status, u32::from(problem.status.as_u16()), problem.message)
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Refused { reason, .. } if reason.contains("not compatible") => Self(StatusCode::CONFLICT, 409, reason),
            RegistryError::Refused { reason, .. } => Self(StatusCode::UNPROCESSABLE_ENTITY, 42201, reason),
            other @ RegistryError::Unreachable { .. } => Self(StatusCode::SERVICE_UNAVAILABLE, 503, other.to_string()),
        }
    }
}

pub(crate) type Answer = Result<Response, Refusal>;

fn answer(value: Value) -> Response {
    ([(header::CONTENT_TYPE, "application/vnd.schemaregistry.v1+json")], value.to_string()).into_response()
}

fn registry(app: &App, caller: &Caller) -> Result<Arc<BuiltInRegistry>, Refusal> {
    caller.needs(Level::Server)?;
    match &app.schemas {
        Some(store) => Ok(store.registry()),
        None => Err(Problem::not_found("the built-in registry is off, since registry.url names another").into()),
    }
}

fn no_subject(subject: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, 40401, format!("Subject '{}' not found.", tillflow_schemas::shorten(subject)))
}

pub(crate) async fn subjects(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(answer(json!(registry(&app, &caller)?.subjects())))
}

pub(crate) async fn schema(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, Path(id): Path<u32>) -> Answer {
    let found = registry(&app, &caller)?.schema(id)?;
    let schema = found.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, 40403, format!("Schema {id} not found")))?;
    Ok(answer(json!({ "schema": schema.text })))
}

pub(crate) async fn types(Extension(caller): Extension<Caller>) -> Answer {
    caller.needs(Level::Server)?;
    Ok(answer(json!(["AVRO"])))
}

pub(crate) async fn versions(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, Path(subject): Path<String>) -> Answer {
    let versions = registry(&app, &caller)?.versions(&subject);
    if versions.is_empty() {
        return Err(no_subject(&subject));
    }
    Ok(answer(versions.iter().map(|v| v.version).collect()))
}

fn shown(subject: &str, v: &Version) -> Value {
    json!({ "subject": subject, "version": v.version, "id": v.id, "schemaType": "AVRO", "schema": v.schema })
}

fn find(registry: &BuiltInRegistry, subject: &str, version: &str) -> Result<Version, Refusal> {
    let versions = registry.versions(subject);
    let latest = versions.last().cloned().ok_or_else(|| no_subject(subject))?;
    if version == "latest" || version == "-1" {
        return Ok(latest);
    }
    let number: u32 = version.parse().map_err(|_| {
        Refusal(
            StatusCode::UNPROCESSABLE_ENTITY,
            42202,
            format!("'{}' is neither a version nor latest", tillflow_schemas::shorten(version)),
        )
    })?;
    versions
        .into_iter()
        .find(|v| v.version == number)
        .ok_or_else(|| Refusal(StatusCode::NOT_FOUND, 40402, format!("Version {number} not found.")))
}

pub(crate) async fn version(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((subject, version)): Path<(String, String)>,
) -> Answer {
    Ok(answer(shown(&subject, &find(&*registry(&app, &caller)?, &subject, &version)?)))
}

#[derive(Deserialize)]
struct Given {
    schema: String,
    #[serde(default, rename = "schemaType")]
    kind: Option<String>,
}

async fn given(app: &App, request: Request) -> Result<String, Refusal> {
    let Given { schema, kind } = ingest::json(app, request).await?;
    match kind.as_deref() {
        None | Some("AVRO") => Ok(schema),
        Some(other) => Err(Refusal(
            StatusCode::UNPROCESSABLE_ENTITY,
            42201,
            format!("{} schemas are not kept; AVRO ones are", tillflow_schemas::shorten(other)),
        )),
    }
}

/// Makes a schema the subject's latest.
pub(crate) async fn register(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(subject): Path<String>,
    request: Request,
) -> Answer {
    let registry = registry(&app, &caller)?;
    let id = registry.register(&subject, &given(&app, request).await?)?;
    keep(&app)?;
    Ok(answer(json!({ "id": id })))
}

fn keep(app: &App) -> Result<(), Refusal> {
    let saved = app.schemas.as_ref().map_or(Ok(()), |store| store.save());
    saved.map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, 50001, format!("the registry can't be kept: {e}")))
}

/// Whether the subject has this schema.
pub(crate) async fn look_up(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(subject): Path<String>,
    request: Request,
) -> Answer {
    let registry = registry(&app, &caller)?;
    if registry.versions(&subject).is_empty() {
        return Err(no_subject(&subject));
    }
    let found = registry.find(&subject, &given(&app, request).await?)?;
    let found = found.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, 40403, "Schema not found".into()))?;
    // Who asks will write with this id.
    keep(&app)?;
    Ok(answer(shown(&subject, &found)))
}

/// Whether a schema may follow the subject's latest.
pub(crate) async fn compatible(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((subject, version)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let registry = registry(&app, &caller)?;
    find(&registry, &subject, &version)?;
    let problems = registry.check(&subject, &given(&app, request).await?)?;
    Ok(answer(json!({ "is_compatible": problems.is_empty(), "messages": problems })))
}

pub(crate) async fn config(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(answer(json!({ "compatibilityLevel": registry(&app, &caller)?.compatibility(None) })))
}

pub(crate) async fn config_of(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, Path(subject): Path<String>) -> Answer {
    Ok(answer(json!({ "compatibilityLevel": registry(&app, &caller)?.compatibility(Some(&subject)) })))
}

#[derive(Deserialize)]
struct Wanted {
    compatibility: Compatibility,
}

pub(crate) async fn set_config(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    set(&app, &caller, None, request).await
}

pub(crate) async fn set_config_of(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(subject): Path<String>,
    request: Request,
) -> Answer {
    set(&app, &caller, Some(&subject), request).await
}

async fn set(app: &Arc<App>, caller: &Caller, subject: Option<&str>, request: Request) -> Answer {
    let registry = registry(app, caller)?;
    let Wanted { compatibility } = ingest::json(app, request).await?;
    registry.set_compatibility(subject, compatibility);
    keep(app)?;
    Ok(Json(json!({ "compatibility": compatibility })).into_response())
}
