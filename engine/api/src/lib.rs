//! tillflow-engine-api
