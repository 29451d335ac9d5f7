//! The BOS rule, token ids and chats, with a small tokenizer that adds `<s>` by default.

use std::sync::Arc;

use residuum::{
    domain::Code,
    model::{ChatEnd, Encoded, TextTokenizer, tokenizer::MAX_TEXT_BYTES},
};
use serde_json::{Map, json};

use crate::model_support::{goldens, load_golden};

fn tokenizer() -> Arc<TextTokenizer> {
    load_golden(&goldens().join("llama/gqa_tied")).tokenizer().clone()
}

fn decision(e: &Encoded) -> (Option<bool>, bool, bool) {
    (e.bos.requested, e.bos.present, e.bos.added)
}

#[test]
fn bos_is_added_as_asked_and_never_twice() {
    let t = tokenizer();
    assert!(t.adds_bos());
    let (bos, spelling) = t.bos_token().unwrap();
    assert_eq!(spelling, "<s>");
    let plain = t.encode("the cat", Some(false)).unwrap();
    assert_eq!(decision(&plain), (Some(false), false, false));
    let with = t.encode("the cat", None).unwrap();
    assert_eq!(decision(&with), (None, true, true));
    assert_eq!(with.ids, [&[bos][..], &plain.ids].concat());
    assert_eq!(with.tokens.concat(), "<s>the cat");
    assert_eq!(with.special.iter().filter(|s| **s).count(), 1);
    assert_eq!(with.offsets.as_ref().unwrap()[..2], [None, Some((0, 3))]);
    assert_eq!(t.encode("the cat", Some(true)).unwrap().ids, with.ids);
    // The text begins with BOS itself.
    for prepend in [None, Some(true), Some(false)] {
        let own = t.encode("<s>the cat", prepend).unwrap();
        assert_eq!(own.ids, with.ids);
        assert_eq!(decision(&own), (prepend, true, false));
    }
}

#[test]
fn ids_are_taken_as_they_are() {
    let t = tokenizer();
    let (bos, _) = t.bos_token().unwrap();
    let plain = t.from_ids(&[5, 6], None).unwrap();
    assert_eq!((plain.ids.as_slice(), decision(&plain)), (&[5, 6][..], (None, false, false)));
    assert_eq!(plain.offsets, None);
    assert_eq!(t.from_ids(&[5, 6], Some(true)).unwrap().ids, [bos, 5, 6]);
    let own = t.from_ids(&[bos, 6], Some(true)).unwrap();
    assert_eq!((own.ids.as_slice(), decision(&own)), (&[bos, 6][..], (Some(true), true, false)));
    let problem = t.from_ids(&[1, 2, 272], None).unwrap_err();
    assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::TokenOutOfVocabulary, "/2"));
    assert_eq!(t.from_ids(&[], None).unwrap_err().code, Code::EmptyInput);
    // The embedding has rows after the tokenizer's last token; they have no text.
    assert_eq!(t.from_ids(&[271], None).unwrap().tokens, ["\u{fffd}"]);
}

#[test]
fn an_input_without_tokens_is_refused() {
    let t = tokenizer();
    assert_eq!(t.encode("", Some(false)).unwrap_err().code, Code::EmptyInput);
    assert_eq!(t.encode("", None).unwrap().tokens, ["<s>"]);
    let huge = "a".repeat(MAX_TEXT_BYTES + 1);
    assert_eq!(t.encode(&huge, None).unwrap_err().code, Code::TooManyTokens);
}

#[test]
fn a_chat_uses_the_models_template_and_gets_no_second_bos() {
    let t = tokenizer();
    let messages = [json!({"role": "user", "content": "the"}), json!({"role": "user", "content": "in"})];
    let rendered = t.render_chat(&messages, ChatEnd::Prompt, &Map::new(), None).unwrap();
    assert_eq!(rendered, "<s><|user|>the<|user|>in");
    let encoded = t.encode_chat(&rendered, None).unwrap();
    assert_eq!(encoded.tokens, ["<s>", "<|user|>", "the", "<|user|>", "in"]);
    assert_eq!(decision(&encoded), (None, true, false));
    assert_eq!(t.encode_chat("the", None).unwrap().tokens, ["the"]);
    assert_eq!(t.encode_chat("the", Some(true)).unwrap().tokens, ["<s>", "the"]);
}

#[test]
fn berts_tokens_are_between_cls_and_sep() {
    // A tokenizer.json, and a bare vocabulary file; neither says which tokens are CLS and SEP.
    for checkpoint in ["bert/masked_lm", "bert/base_model_old_names"] {
        let model = load_golden(&goldens().join(checkpoint));
        let t = model.tokenizer();
        assert!(t.adds_bos(), "{checkpoint}");
        assert_eq!(t.bos_token(), Some((2, "[CLS]")));
        let own = t.encode("Running, the towers! 北京", None).unwrap();
        assert_eq!(
            own.tokens,
            ["[CLS]", "run", "##ning", ",", "the", "tower", "##s", "!", "北", "京", "[SEP]"],
            "{checkpoint}"
        );
        assert_eq!((own.special[0], own.special[1], own.special[10], own.n_suffix), (true, false, true, 1));
        assert_eq!(own.offsets.as_ref().unwrap()[..4], [None, Some((0, 3)), Some((3, 7)), Some((7, 8))]);
        assert_eq!(own.offsets.as_ref().unwrap()[10], None);
        assert_eq!(decision(&own), (None, true, true));
        assert_eq!(t.encode("Running, the towers! 北京", Some(true)).unwrap().ids, own.ids);
        let bare = t.encode("Running, the towers! 北京", Some(false)).unwrap();
        assert_eq!((bare.ids.as_slice(), decision(&bare)), (&own.ids[1..10], (Some(false), false, false)));
        assert_eq!(bare.n_suffix, 0);
        // The text begins with CLS itself.
        let brought = t.encode("[CLS] the [MASK]", None).unwrap();
        assert_eq!(brought.tokens, ["[CLS]", "the", "[MASK]", "[SEP]"]);
        assert_eq!(decision(&brought), (None, true, false));
        assert_eq!(t.encode("~", None).unwrap().tokens, ["[CLS]", "[UNK]", "[SEP]"]);
    }
}

#[test]
fn partial_characters_are_shown_as_replacement_characters() {
    let t = tokenizer();
    let encoded = t.encode("é", Some(false)).unwrap();
    assert_eq!(encoded.tokens, ["\u{fffd}", "\u{fffd}"]);
    assert_eq!(encoded.offsets.unwrap(), [Some((0, 1)), Some((0, 1))]);
}
