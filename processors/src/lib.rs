//! tillflow-processors
