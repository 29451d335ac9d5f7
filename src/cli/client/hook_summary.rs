//! Many hooks in a few words.

use super::visible::visible;

/// A hook name without its layer, and the layer.
fn parts(hook: &str) -> (Option<usize>, &str) {
    let inside = hook.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    match inside.and_then(|(layer, name)| Some((layer.parse().ok()?, name))) {
        Some((layer, name)) => (Some(layer), name),
        None => (None, hook),
    }
}

/// The short form of a hook name without its layer: `hook_resid_post` is `resid_post`, `attn.hook_z` is `attn.z`.
fn short(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((place, name)) => format!("{place}.{}", name.strip_prefix("hook_").unwrap_or(name)),
        None => name.strip_prefix("hook_").unwrap_or(name).to_owned(),
    }
}

/// Hooks of the same name and shape.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HookGroup {
    /// Short name.
    pub(super) name: String,
    /// Layers, in order; empty for a hook outside the blocks.
    pub(super) layers: Vec<usize>,
    /// Shape of each tensor, as text.
    pub(super) shape: String,
}

/// Groups hooks by name and shape, in the order in which they first come.
pub(super) fn groups<'a>(hooks: impl IntoIterator<Item = (&'a str, String)>) -> Vec<HookGroup> {
    let mut groups: Vec<HookGroup> = Vec::new();
    for (hook, shape) in hooks {
        let (layer, name) = parts(hook);
        let name = visible(&short(name));
        match groups.iter_mut().find(|g| g.name == name && g.shape == shape && layer.is_some()) {
            Some(group) => group.layers.extend(layer),
            None => groups.push(HookGroup { name, layers: layer.into_iter().collect(), shape }),
        }
    }
    groups
}

/// Layers as ranges: `0-29`, `0,5,10-12`.
pub(super) fn layer_ranges(layers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for layer in layers {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == *layer => *end = *layer,
            _ => ranges.push((*layer, *layer)),
        }
    }
    let range = |(start, end): &(usize, usize)| match end - start {
        0 => start.to_string(),
        1 => format!("{start},{end}"),
        _ => format!("{start}-{end}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

/// A shape as text: `[9, 576]`, with `?` for an axis whose length is not fixed.
pub(super) fn shape(lengths: impl IntoIterator<Item = Option<usize>>) -> String {
    let lengths = lengths.into_iter().map(|n| n.map_or_else(|| "?".to_owned(), |n| n.to_string()));
    format!("[{}]", lengths.collect::<Vec<_>>().join(", "))
}

/// Hooks in a few words: `resid_post 0-29, logits`.
pub(super) fn summary<'a>(hooks: impl IntoIterator<Item = &'a str>) -> String {
    let groups = groups(hooks.into_iter().map(|hook| (hook, String::new())));
    let one = |g: &HookGroup| match g.layers[..] {
        [] => g.name.clone(),
        _ => format!("{} {}", g.name, layer_ranges(&g.layers)),
    };
    groups.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_grouped_by_name_and_shape() {
        let hooks = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post", "logits"];
        assert_eq!(summary(hooks), "resid_post 0-2, logits");
        assert_eq!(summary(["blocks.3.attn.hook_z", "hook_embed", "blocks.x.odd"]), "attn.z 3, embed, blocks.x.odd");
        let shaped = groups([("blocks.0.attn.hook_k", "[2]".to_owned()), ("blocks.1.attn.hook_k", "[4]".to_owned())]);
        assert_eq!(shaped.len(), 2);
        assert_eq!(layer_ranges(&[0, 1, 5, 6, 7, 9]), "0,1,5-7,9");
        assert_eq!(shape([None, Some(576)]), "[?, 576]");
    }
}
