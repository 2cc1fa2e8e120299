//! recommendations
