//! Shapes of the doctor's findings.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the doctor found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorShape {
    /// 1.
    pub schema_version: u32,
    /// The worst level of all checks.
    pub level: CheckLevel,
    /// In a fixed order.
    pub checks: Vec<DoctorCheck>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorCheck {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub level: CheckLevel,
    /// What was found.
    pub text: String,
    /// What to do; empty when all is well.
    #[serde(default)]
    pub next: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckLevel {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warn,
    /// Does not work.
    Fail,
}
