//! SAELens versions: the meaning and the defaults of keys depend on the version that wrote a file.

/// A version of SAELens: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// From this version on, settings of the text are in `metadata`; older files are converted (`handle_pre_6_0_config`).
    pub(super) const SIX: Self = Self(6, 0, 0);
    /// From this version on, weights were not processed by default (`from_pretrained_no_processing` in `load_model`); before, they
    /// were processed by TransformerLens.
    pub(super) const UNPROCESSED: Self = Self(3, 19, 2);
    /// The newest version whose keys are known here.
    pub(super) const NEWEST: Self = Self(6, 54, u32::MAX);

    /// Reads `6.54.12`; a pre-release such as `6.0.0-rc.1` counts as its release. `None` for other texts.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let major = parts.next()?.parse().ok()?;
        let mut part = || {
            let digits: String = parts.next().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        Some(Self(major, part(), part()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let of = |text| Version::parse(text);
        assert_eq!(of("6.54.12"), Some(Version(6, 54, 12)));
        assert_eq!(of("6.0.0-rc.1"), Some(Version::SIX));
        assert_eq!(of("4"), Some(Version(4, 0, 0)));
        assert!(of("3.19.1") < Some(Version::UNPROCESSED) && of("3.20.0") > Some(Version::UNPROCESSED));
        assert!(of("6.54.99") < Some(Version::NEWEST) && of("6.55.0") > Some(Version::NEWEST));
        assert_eq!((of("next"), of("")), (None, None));
    }
}
