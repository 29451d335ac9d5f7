//! Token offsets, spans of messages and chats left open, against transformers with the demo model's tokenizer.

use residuum::{
    domain::positions::{Spelled, TokenView},
    model::{ChatEnd, TextTokenizer},
};
use serde_json::{Map, Value, json};

use crate::model_support::{goldens, smollm2};

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(goldens().join("smollm2_chats.json")).unwrap()).unwrap()
}

fn tokenizer() -> &'static TextTokenizer {
    smollm2().tokenizer()
}

fn cases(golden: &Value, name: &str) -> Vec<(Value, Value)> {
    let cases = golden[name].as_array().unwrap();
    assert!(cases.len() >= 5);
    cases.iter().map(|case| (case[0].clone(), case[1].clone())).collect()
}

#[test]
fn offsets_are_those_of_transformers() {
    for (text, expected) in cases(&golden(), "offsets") {
        let encoded = tokenizer().encode(text.as_str().unwrap(), None).unwrap();
        assert_eq!(json!(encoded.offsets.unwrap()), expected, "{text}");
        // Token ids alone spell the same text, with the same offsets.
        let spelled = tokenizer().spell(&encoded.ids).unwrap();
        assert_eq!((json!(spelled.text), json!(spelled.offsets)), (text, expected));
    }
}

#[test]
fn special_tokens_are_those_of_transformers() {
    let special: Vec<u32> = serde_json::from_value(golden()["special"].clone()).unwrap();
    let ids: Vec<u32> = (0..u32::try_from(tokenizer().vocab_size()).unwrap()).collect();
    let encoded = tokenizer().from_ids(&ids, None).unwrap();
    for (id, is_special) in ids.iter().zip(&encoded.special) {
        // A GGUF file marks more tokens as control tokens.
        assert!(*is_special || !special.contains(id), "{id}");
    }
}

#[test]
fn a_chat_left_open_ends_where_transformers_ends_it() {
    for (messages, expected) in cases(&golden(), "open") {
        let rendered = tokenizer().render_chat(messages.as_array().unwrap(), ChatEnd::Open, &Map::new(), None).unwrap();
        assert_eq!(json!(rendered), expected);
    }
}

#[test]
fn messages_have_the_tokens_transformers_gives_them() {
    for (messages, expected) in cases(&golden(), "chats") {
        let messages = messages.as_array().unwrap();
        for end in [ChatEnd::ByRole, ChatEnd::Closed, ChatEnd::Prompt, ChatEnd::Open] {
            let rendered = tokenizer().render_chat(messages, end, &Map::new(), None).unwrap();
            let encoded = tokenizer().encode_chat(&rendered, None).unwrap();
            let spans = tokenizer().message_spans(messages, end, &Map::new(), None, &rendered);
            let offsets = encoded.offsets.as_deref().unwrap();
            let spelled = Spelled { text: rendered.as_str().into(), offsets: offsets.into(), cut: 0..0 };
            let tokens: Vec<_> = spans.iter().map(|span| spelled.tokens(span.as_ref().unwrap()).unwrap()).collect();
            let tokens: Vec<[usize; 2]> = tokens.into_iter().map(|t| [t.start, t.end]).collect();
            assert_eq!(json!(tokens), expected, "{messages:?} {end:?}");
            let view = TokenView { special: &encoded.special, spelled: Some(spelled), messages: Some(spans) };
            let last: residuum::domain::PositionsRequest = serde_json::from_value(json!({"message": -1})).unwrap();
            let last = serde_json::to_value(last.resolve(&view).unwrap()).unwrap();
            assert_eq!(last, json!(tokens.last().unwrap()[1] - 1));
        }
    }
}
