//! tillflow-gateway
