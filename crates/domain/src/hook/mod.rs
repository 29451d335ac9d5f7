//! Hook points: the named places of a forward pass, spelled as TransformerLens spells them.
//!
//! A [`Site`] is a kind of hook point (`attn.hook_q`); a [`Hook`] is a site in one layer (`blocks.5.attn.hook_q`), or a site
//! outside the blocks (`logits`). Hooks are ordered as the forward pass reaches them, which is also the order of the tensors in a
//! blob. Post-norm blocks run `ln1` and `ln2` after the sublayers, but the order of hooks is the same for them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod site;

use site::Stage;
pub use site::{Axis, Site};

/// One hook point of a model: a site, and the layer for those inside the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hook {
    site: Site,
    layer: Option<u32>,
}

impl Hook {
    /// A hook inside block `layer`.
    ///
    /// # Panics
    /// When the site is outside the blocks: that is a bug of the caller.
    #[must_use]
    pub fn block(site: Site, layer: usize) -> Self {
        assert!(site.in_block(), "{} lies outside the blocks", site.name());
        // a client may name any number; no model has a layer beyond `u32`
        Self { site, layer: Some(u32::try_from(layer).unwrap_or(u32::MAX)) }
    }

    /// A hook outside the blocks.
    ///
    /// # Panics
    /// When the site is inside the blocks: that is a bug of the caller.
    #[must_use]
    pub fn global(site: Site) -> Self {
        assert!(!site.in_block(), "{} needs a layer", site.name());
        Self { site, layer: None }
    }

    /// The site.
    #[must_use]
    pub fn site(&self) -> Site {
        self.site
    }

    /// The 0-based block index, for hooks inside the blocks.
    #[must_use]
    pub fn layer(&self) -> Option<usize> {
        self.layer.map(|l| l as usize)
    }

    /// Sort key: execution order.
    fn order(&self) -> (Stage, u32, Site) {
        (self.site.stage(), self.layer.unwrap_or(0), self.site)
    }
}

impl Ord for Hook {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Hook {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(l) => write!(f, "blocks.{l}.{}", self.site.name()),
            None => f.write_str(self.site.name()),
        }
    }
}

/// A hook name as a client writes it: a full name, or a short name, whose layers are given elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookName {
    /// One hook: `blocks.5.hook_resid_post`, `resid_post.5`, `logits`.
    Full(Hook),
    /// A site in several layers: `resid_post`, `attn.pattern`.
    Short(Site),
}

impl FromStr for HookName {
    type Err = UnknownHook;

    fn from_str(name: &str) -> Result<Self, UnknownHook> {
        let unknown = || UnknownHook(name.chars().take(100).collect());
        if let Some(rest) = name.strip_prefix("blocks.") {
            let (layer, rest) = rest.split_once('.').ok_or_else(unknown)?;
            let site = Site::by_short_name(rest).filter(|s| s.in_block()).ok_or_else(unknown)?;
            return Ok(Self::Full(Hook { site, layer: Some(parse_layer(layer).ok_or_else(unknown)?) }));
        }
        if let Some(site) = Site::by_short_name(name) {
            return Ok(if site.in_block() { Self::Short(site) } else { Self::Full(Hook::global(site)) });
        }
        // `resid_post.10`
        let (short, layer) = name.rsplit_once('.').ok_or_else(unknown)?;
        let site = Site::by_short_name(short).filter(|s| s.in_block()).ok_or_else(unknown)?;
        Ok(Self::Full(Hook { site, layer: Some(parse_layer(layer).ok_or_else(unknown)?) }))
    }
}

/// Parses a layer: digits only, so not `+5`, `05` or `-1`.
fn parse_layer(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

impl FromStr for Hook {
    type Err = UnknownHook;

    /// Parses the name of one hook; a short name without a layer is refused.
    fn from_str(name: &str) -> Result<Self, UnknownHook> {
        match name.parse()? {
            HookName::Full(hook) => Ok(hook),
            HookName::Short(_) => Err(UnknownHook(name.chars().take(100).collect())),
        }
    }
}

impl Serialize for Hook {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hook {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A name that is not a hook point of any model; its first hundred characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no hook point named `{0}`")]
pub struct UnknownHook(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_in_each_spelling() {
        for site in Site::ALL.iter().copied() {
            let hook = if site.in_block() { Hook::block(site, 7) } else { Hook::global(site) };
            assert_eq!(hook.to_string().parse(), Ok(hook));
            assert_eq!(Site::by_short_name(&site.without_hook()), Some(site), "{}", site.name());
            if site.in_block() {
                assert_eq!(format!("{}.7", site.without_hook()).parse(), Ok(hook));
                assert_eq!(site.name().parse(), Ok(HookName::Short(site)));
            }
        }
    }

    #[test]
    fn no_name_means_two_places() {
        let names = |s: &Site| {
            if s.name() == s.without_hook() {
                vec![s.name().to_owned()]
            } else {
                vec![s.name().to_owned(), s.without_hook()]
            }
        };
        let synonyms = Site::SYNONYMS.iter().map(|(name, _)| (*name).to_owned());
        let mut all: Vec<String> = Site::ALL.iter().flat_map(names).chain(synonyms).collect();
        // A short name ends in no number: `resid_post.10` is layer 10.
        assert!(all.iter().all(|name| name.rsplit('.').next().and_then(parse_layer).is_none()));
        let n = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), n);
    }

    #[test]
    fn transformer_lens_synonyms_have_the_canonical_name() {
        for (synonym, name) in [
            ("blocks.5.hook_in", "blocks.5.hook_resid_pre"),
            ("blocks.5.hook_out", "blocks.5.hook_resid_post"),
            ("hook_out.5", "blocks.5.hook_resid_post"),
            ("pos_embed.hook_out", "hook_pos_embed"),
            ("ln_final.hook_out", "final_norm"),
        ] {
            assert_eq!(synonym.parse::<Hook>().map(|h| h.to_string()), Ok(name.to_owned()));
        }
        assert_eq!("hook_out".parse(), Ok(HookName::Short(Site::ResidPost)));
    }

    #[test]
    fn near_names_are_different_hooks_or_none() {
        assert_eq!("attn_out".parse(), Ok(HookName::Short(Site::AttnOut)));
        assert_eq!("attn.out".parse(), Ok(HookName::Short(Site::AttnRawOut)));
        assert_eq!("ln_final.hook_out".parse(), Ok(Hook::global(Site::FinalNorm)));
        for name in [
            "resid",
            "blocks.x.hook_resid_post",
            "blocks.-1.hook_resid_post",
            "blocks.05.hook_resid_post",
            "blocks.3.logits",
            "blocks.3",
            "resid_post.+1",
            "",
            "hook_hook_embed",
            "out",
            "blocks.3.in",
            "unembed.hook_out",
            "embed.hook_out",
            "blocks.3.ln2.hook_in",
        ] {
            assert!(name.parse::<HookName>().is_err(), "{name}");
        }
    }

    #[test]
    fn hooks_sort_as_the_forward_pass_reaches_them() {
        let mut names: Vec<Hook> = [
            "logits",
            "blocks.1.hook_resid_pre",
            "blocks.0.hook_resid_post",
            "hook_embed",
            "blocks.0.attn.hook_z",
            "final_norm",
        ]
        .iter()
        .map(|n| n.parse().unwrap())
        .collect();
        names.sort();
        let sorted: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(
            sorted,
            [
                "hook_embed",
                "blocks.0.attn.hook_z",
                "blocks.0.hook_resid_post",
                "blocks.1.hook_resid_pre",
                "final_norm",
                "logits"
            ]
        );
    }
}
