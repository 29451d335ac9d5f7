use super::*;
use serde_json::json;

fn render(source: &str, messages: Value) -> Result<String, Problem> {
    let roles = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    let kwargs = Map::from_iter([("flag".to_owned(), json!({"b": [1, 2.5], "a": "é\n"}))]);
    ChatTemplate::new(source.to_owned(), roles, "/messages").render(
        messages.as_array().unwrap(),
        ChatEnd::Prompt,
        &kwargs,
    )
}

#[test]
fn templates_see_what_transformers_gives_them() {
    let source = "{{ bos_token }}{% for m in messages %}\n  {% if m['role'].startswith('u') %}\n{{ m.content.strip() }}\n  {% endif %}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}{% if tools is not none %}tools{% endif %}";
    let messages = json!([{"role": "user", "content": " hi "}, {"role": "x", "content": "y"}]);
    assert_eq!(render(source, messages).unwrap(), "<s>hi\n>");
}

#[test]
fn tojson_is_pythons() {
    let dumps = |call: &str| render(&format!("{{{{ flag | tojson{call} }}}}"), json!([])).unwrap();
    assert_eq!(dumps(""), r#"{"b": [1, 2.5], "a": "é\n"}"#);
    assert_eq!(dumps("(sort_keys=true, ensure_ascii=true)"), r#"{"a": "\u00e9\n", "b": [1, 2.5]}"#);
    assert_eq!(dumps("(indent=2)"), "{\n  \"b\": [\n    1,\n    2.5\n  ],\n  \"a\": \"é\\n\"\n}");
}

#[test]
fn generation_marks_are_transparent() {
    let source = "{% generation %}a{%- endgeneration -%} b{{ 'generation' }}";
    assert_eq!(render(source, json!([])).unwrap(), "abgeneration");
}

#[test]
fn what_a_template_raises_reaches_the_client() {
    let problem = render("{{ raise_exception('roles must alternate') }}", json!([])).unwrap_err();
    assert_eq!((problem.code, problem.detail.as_str()), (Code::ChatTemplateFailed, "roles must alternate"));
    let problem = render("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}", json!([]));
    assert_eq!(problem.unwrap_err().detail, "the chat template runs too long on these messages");
    assert_eq!(render("{% if %}", json!([])).unwrap_err().code, Code::ChatTemplateFailed);
    assert_eq!(render("{% include 'other' %}", json!([])).unwrap_err().code, Code::ChatTemplateFailed);
}

/// Pieces that templates are made of, also such as do not belong together.
const PIECES: [&str; 34] = [
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if m.role == 'user' %}",
    "{% elif true %}",
    "{% else %}",
    "{% endif %}",
    "{{ m.content }}",
    "{{ m['content'] | trim }}",
    "{{ messages | tojson }}",
    "{{ loop.index0 % 2 }}",
    "{% set x = messages %}",
    "{% set x = [x, x] %}",
    "{% set ns = namespace(x='ab') %}",
    "{% set ns.x = ns.x ~ ns.x %}",
    "{{ x[1:] }}",
    "{{ x[::-1] }}",
    "{{ -x }}",
    "{{ x // 0 }}",
    "{{ 9223372036854775807 + 1 }}",
    "{{ 2 ** 100 }}",
    "{{ 'a' * 1000 }}",
    "{{ 'é'[0:1] }}",
    "{% macro f(a) %}",
    "{% endmacro %}",
    "{{ f(1) }}",
    "{{ raise_exception(x) }}",
    "{{ strftime_now('%Q%%%') }}",
    "{{",
    "}}",
    "{%- generation -%}",
    "{% endgeneration %}",
    "{% raw %}",
    "{# ",
    "é\u{202e}\0",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]
    #[test]
    fn any_template_renders_or_is_refused(pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..14)) {
        let messages = json!([{"role": "user", "content": "{{ é"}, {"role": "assistant"}, {"role": 3, "content": [{"type": "text", "text": ""}]}]);
        match render(&pieces.concat(), messages) {
            Ok(text) => assert!(text.len() < 32 << 20),
            Err(problem) => {
                assert_eq!(problem.code, Code::ChatTemplateFailed);
                assert!(!problem.detail.is_empty() && problem.detail.len() < 1000, "{}", problem.detail);
            }
        }
    }
}

#[test]
fn hostile_templates_end() {
    let doubling =
        "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = DOUBLE %}{% endfor %}x";
    let mut templates: Vec<String> = ["ns.x ~ ns.x", "ns.x + ns.x", "[ns.x, ns.x] | join", "ns.x.replace('a', 'aa')"]
        .into_iter()
        .map(|double| doubling.replace("DOUBLE", double))
        .collect();
    // sixty lists, each with the one before twice
    let shared = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    let deep = "{% set ns = namespace(x=[1]) %}{% for i in range(10) %}{% for j in range(10000) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
    let written = ["{{ ns.x }}", "{% set y %}{{ ns.x }}{% endset %}", "{{ ns.x | tojson }}", "{{ {'a': ns.x} }}"];
    templates.extend([shared, deep].into_iter().flat_map(|v| written.iter().map(move |w| format!("{v}{w}"))));
    let equal_lists = format!("{shared}{{% set other = ns.x %}}{shared}");
    let compared = ["ns.x == other", "[ns.x] in [[other]]", "{(ns.x,): 1}", "[ns.x, other] | max", "ns.x is eq other"];
    templates.extend(compared.map(|compare| format!("{equal_lists}{{{{ {compare} }}}}")));
    let cycle =
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{% set other = namespace() %}{% set other.x = [other] %}";
    let used = ["ns", "ns.x | string", "ns.x | tojson", "{ns: 1}", "[ns.x, other.x] | sort"];
    templates.extend(used.map(|used| format!("{cycle}{{{{ {used} }}}}")));
    let others = [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(x) %}{{ f([x, x]) }}{% endmacro %}{{ f(1) }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ 'a' | indent(10000000000, true) }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ 'a'.zfill(10 ** 12) }}",
        "{{ 'a'.center(10 ** 30) }}",
        "{{ 'a'.ljust(9000000) }}",
        "{{ 'a\t'.expandtabs(10 ** 12) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1 }}",
        "{{ '%*d' % (10 ** 12, 1) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ '{:.1000000000f}'.format(1.0) }}",
        "{{ '{:{w}}'.format(1, w=10 ** 12) }}",
        "{{ ('a' * 4000).replace('a', 'b' * 4000) }}",
        "{{ ('a' * 4000000).replace('', '12') }}",
        "{{ ('a' * 4000).join('b' * 4000) }}",
        "{{ ['a' * 4000] * 4000 | join('x') }}",
        "{{ ('a' * 4000000) ~ ('a' * 4000000) }}",
        "{{ ('%s%s' % ('a' * 4000000, 'a' * 4000000)) | length }}",
        "{{ ('&' * 4000000) | e | length }}",
        "{{ ('a ' * 2000000).split() | length }}",
        "{{ 'a\nb' | indent('x' * 4000000) | indent('x' * 4000000) | length }}",
        "{% for i in range(100) %}{{ 'a' * 1000000 }}{% endfor %}",
        "{{ range(10) | map('string') | list * 1000000 | join | length }}",
        "{{ [1] | tojson(indent=10000000000) }}",
        "{{ range(10000000000) }}",
        "{% include '/etc/passwd' %}",
        "{% extends '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}{{ x }}",
    ];
    templates.extend(others.map(str::to_owned));
    templates.push(format!("{{{{ {}1{} }}}}", "[".repeat(20_000), "]".repeat(20_000)));
    templates.push("x".repeat(MAX_SOURCE + 1));
    for template in templates {
        let shown = &template[..template.len().min(300)];
        let problem = render(&template, json!([])).expect_err(shown);
        assert_eq!(problem.code, Code::ChatTemplateFailed, "{shown}");
        assert!(!problem.detail.contains("passwd:") && problem.detail.len() < 500, "{}", problem.detail);
    }
    assert_eq!(render(&format!("{deep}ok"), json!([])).unwrap(), "ok", "and what is built is taken down");
    let negated = format!("{{{{ {}1 }}}}", "-".repeat(100_000));
    assert_eq!(render(&negated, json!([])).unwrap(), "1", "also while it is read");
}

#[test]
fn what_clients_say_is_text_and_no_template() {
    let source = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
    let said = "{{ 7 * 7 }}{% raise %}{% include 'x' %}<&>'\"";
    let rendered = render(source, json!([{"role": said, "content": said}])).unwrap();
    assert_eq!(rendered, format!("{said}:{said};"));
}

#[test]
fn template_kwargs_cannot_replace_the_messages() {
    let template = ChatTemplate::new("x".to_owned(), BTreeMap::new(), "/messages");
    let kwargs = Map::from_iter([("messages".to_owned(), json!([]))]);
    let problem = template.render(&[], ChatEnd::Prompt, &kwargs).unwrap_err();
    assert_eq!(problem.errors[0].pointer, "/template_kwargs/messages");
}

#[test]
fn a_last_message_is_left_open() {
    let open = |source: &str, messages: Value| {
        let template = ChatTemplate::new(source.to_owned(), BTreeMap::new(), "/messages");
        template.render(messages.as_array().unwrap(), ChatEnd::Open, &Map::new())
    };
    let plain = "{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}!{% endif %}";
    let trims = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}";
    let chat = || json!([{"content": "Paris"}, {"content": "The city of "}]);
    assert_eq!(open(plain, chat()).unwrap(), "<Paris><The city of ");
    assert_eq!(open(trims, chat()).unwrap(), "<Paris><The city of");
    // The last message says what an earlier one says.
    assert_eq!(open(plain, json!([{"content": "a"}, {"content": "a"}])).unwrap(), "<a><a");
    let blocks = "{% for b in messages[0].content %}{{ b.text }};{% endfor %}";
    let two = json!([{"content": [{"text": "a"}, {"text": "b"}]}]);
    assert_eq!(open(blocks, two).unwrap(), "a;b");
    assert_eq!(open(plain, json!([{"content": null}])).unwrap_err().code, Code::InvalidValue);
    assert_eq!(open(plain, json!([])).unwrap_err().code, Code::InvalidValue);
    assert_eq!(open("fixed", chat()).unwrap_err().code, Code::ChatTemplateFailed);
}

#[test]
fn an_open_message_has_its_span_too() {
    let source = "{% for m in messages %}<{{ m.content }}>{% endfor %}";
    let template = ChatTemplate::new(source.to_owned(), BTreeMap::new(), "/messages");
    let messages = [json!({"content": "Paris"}), json!({"content": " The city of "})];
    let rendered = template.render(&messages, ChatEnd::Open, &Map::new()).unwrap();
    let spans = template.spans(&messages, ChatEnd::Open, &Map::new(), &rendered);
    assert_eq!(rendered, "<Paris>< The city of ");
    assert_eq!(spans, [Some(1..6), Some(9..20)]);
}

#[test]
fn a_null_field_is_a_missing_one() {
    let source = "{{ messages[0].tool_calls is defined }}{{ messages[0].thinking }}";
    let messages = json!([{"tool_calls": null, "thinking": null, "reasoning": "so"}]);
    assert_eq!(render(source, messages).unwrap(), "Falseso");
}

/// What transformers renders, from `scripts/make_chat_goldens.py`.
fn goldens() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/chat_templates.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn golden_render(source: &Value, messages: &Value, end: ChatEnd, kwargs: &Value) -> Result<String, String> {
    let roles = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    let template = ChatTemplate::new(source.as_str().unwrap().to_owned(), roles, "/messages");
    template.render(messages.as_array().unwrap(), end, kwargs.as_object().unwrap()).map_err(|p| p.detail)
}

/// A rendering is what the reference renders, or an error where it raises one.
fn check(shown: &str, got: Result<String, String>, expected: &Value) -> Option<String> {
    let same = match (&got, expected.as_str()) {
        (Ok(got), Some(expected)) => got == expected,
        (Err(_), None) => true,
        _ => false,
    };
    (!same).then(|| format!("{shown:?}: {got:?} instead of {expected:?}"))
}

#[test]
fn small_templates_are_as_the_references() {
    let golden = goldens();
    let render = |case: &Value| golden_render(&case[0], &golden["messages"], ChatEnd::Prompt, &golden["context"]);
    let cases = golden["cases"].as_array().unwrap();
    let wrong: Vec<String> =
        cases.iter().filter_map(|case| check(case[0].as_str().unwrap(), render(case), &case[1])).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    for case in golden["differs"].as_array().unwrap() {
        let shown = case[0].as_str().unwrap();
        assert!(check(shown, render(case), &case[1]).is_some(), "{shown} does not differ: it is no exception any more");
    }
}

#[test]
fn whole_templates_are_as_the_references() {
    let golden = goldens();
    let cases = golden["rendered"].as_array().unwrap();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let (name, chat) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
            let given = &golden["chats"][chat];
            let end = if given["prompt"] == true { ChatEnd::Prompt } else { ChatEnd::Closed };
            let got = golden_render(&golden["templates"][name], &given["messages"], end, &given["kwargs"]);
            check(&format!("{name} {chat}"), got, &case[2])
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
