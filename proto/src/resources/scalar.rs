//! Fixed-point amounts.

use std::fmt;

use thiserror::Error;

/// An amount in thousandths of its unit (cpus, MiB, …), never negative.
///
/// Mesos rounds scalars to three decimals (behaviour rule 51); keeping them as
/// integers makes `a + b - b == a` exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Scalar(u64);

/// Largest amount: 10^12 units, Mesos' own limit for quantities (rule 72).
const MAX_MILLIS: u64 = 1_000_000_000_000_000;

/// Why a number is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ScalarError {
    /// NaN or infinite.
    #[error("{0} is not a finite number")]
    NotFinite(f64),
    /// Below zero.
    #[error("{0} is negative")]
    Negative(f64),
    /// Above 10^12.
    #[error("{0} is more than the largest amount, 1000000000000")]
    TooLarge(f64),
}

impl Scalar {
    /// Nothing.
    pub const ZERO: Scalar = Scalar(0);

    /// `millis` thousandths; cut at 10^12 units.
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > MAX_MILLIS { MAX_MILLIS } else { millis })
    }

    /// `units` whole units; cut at 10^12.
    pub const fn from_units(units: u64) -> Self {
        Self::from_millis(units.saturating_mul(1000))
    }

    /// Rounded to the nearest thousandth.
    ///
    /// # Errors
    /// [`ScalarError`] when the number is not finite, negative or above 10^12.
    pub fn from_f64(value: f64) -> Result<Self, ScalarError> {
        if !value.is_finite() {
            return Err(ScalarError::NotFinite(value));
        }
        let millis = (value * 1000.0).round();
        if millis < 0.0 {
            return Err(ScalarError::Negative(value));
        }
        if millis > MAX_MILLIS as f64 {
            return Err(ScalarError::TooLarge(value));
        }
        Ok(Self(millis as u64))
    }

    /// Thousandths.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// In units.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum; cut at 10^12 units.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self::from_millis(self.0.saturating_add(other.0))
    }

    /// The difference, or `None` when `other` is more.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }

    /// The difference, or nothing when `other` is more.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Scalar {
    /// Without trailing zeros: `4`, `0.5`, `1.125`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, rest) = (self.0 / 1000, self.0 % 1000);
        if rest == 0 {
            return write!(f, "{units}");
        }
        let rest = format!("{rest:03}");
        write!(f, "{units}.{}", rest.trim_end_matches('0'))
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
