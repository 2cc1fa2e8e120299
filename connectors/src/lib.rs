//! tillflow-connectors
