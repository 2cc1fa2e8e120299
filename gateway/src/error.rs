//! What goes wrong, as the operator and as a client sees it.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use std::net::SocketAddr;
use tillflow_engine::port::PortError;
use tillflow_schemas::DecodeError;

/// Why the gateway can't serve.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address can't be had.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// Which address.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// What is written is no address.
    #[error("{key}: '{given}' is not host:port, such as 127.0.0.1:8080")]
    Address {
        /// Where it is written.
        key: &'static str,
        /// What is written.
        given: String,
    },
    /// Others could reach it, and nothing says who may do what.
    #[error(
        "refuses to listen on {0}, which other machines can reach, without keys: set keys.server, keys.write and keys.admin, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// Other instances could not ask this one there.
    #[error("advertised: '{0}' is neither host:port nor http://host:port, where other instances reach this one")]
    Advertised(String),
    /// The system failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A metric can't be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The client that asks other instances can't be made.
    #[error("the client for other instances: {0}")]
    Client(#[from] reqwest::Error),
}

/// An answer that is not the one asked for: `{"error": {"code", "message"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub status: StatusCode,
    /// For programs; stays when the message is reworded.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// In how many seconds to try again.
    pub retry_after: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).retry_after(2)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message).retry_after(1)
    }
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// The answer for a status that something below the handlers gave.
    pub fn of_status(status: StatusCode, message: String) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::REQUEST_TIMEOUT => "timeout",
            s if s.is_client_error() => "bad_request",
            _ => "internal",
        };
        let message = if message.is_empty() { status.canonical_reason().unwrap_or("failed").to_owned() } else { message };
        Self::new(status, code, message)
    }

    pub fn body(&self) -> serde_json::Value {
        json!({ "error": { "code": self.code, "message": self.message } })
    }

    /// The answer with another body that holds this error too.
    pub fn with_body(&self, body: serde_json::Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.with_body(self.body())
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", error.to_string())
    }
}

impl From<PortError> for Problem {
    fn from(error: PortError) -> Self {
        let message = error.to_string();
        match error {
            PortError::Unavailable(_) => Self::unavailable(message),
            PortError::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message).retry_after(1),
            PortError::Restoring => Self::new(StatusCode::SERVICE_UNAVAILABLE, "restoring", message).retry_after(1),
            PortError::Elsewhere(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "moving", message).retry_after(1),
            PortError::Unreachable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "moving", message).retry_after(5),
            PortError::NoSuchQuery(_) => Self::not_found(message),
            PortError::Refused(_) => Self::new(StatusCode::BAD_REQUEST, "refused", message),
            PortError::Failed(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message),
        }
    }
}
