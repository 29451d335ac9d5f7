//! Checks of tensors against facts.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{Code, Dtype, Positions, Problem, tensor_file::FileHeader};

/// A header of tensors, each a name, a type, its size in bytes and a shape.
fn header(tensors: &[(&str, &str, usize, &[usize])]) -> FileHeader {
    let mut root = serde_json::Map::new();
    let mut end = 0;
    for (name, dtype, size, shape) in tensors {
        let begin = end;
        end += size * shape.iter().product::<usize>();
        root.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}));
    }
    FileHeader::parse(json!(root).to_string().as_bytes()).unwrap()
}

fn spec(given: &[(&'static str, &str)]) -> Result<ImportSpec, Problem> {
    let given: Given = [("model", "m")].iter().chain(given).map(|(k, v)| (*k, (*v).to_owned())).collect();
    ImportSpec::read(given, BTreeMap::new())
}

fn plan(tensors: &[(&str, &str, usize, &[usize])], given: &[(&'static str, &str)]) -> Result<ImportPlan, Problem> {
    ImportPlan::new(&header(tensors), &spec(given)?)
}

fn refused(tensors: &[(&str, &str, usize, &[usize])], given: &[(&'static str, &str)]) -> (Code, String) {
    let problem = plan(tensors, given).unwrap_err();
    (problem.code, problem.errors.first().map(|e| e.pointer.clone()).unwrap_or_default())
}

#[test]
fn a_stack_becomes_its_layers() {
    let tensors: &[_] = &[("resid_post", "F16", 2, &[2, 5, 8][..]), ("token_ids", "I64", 8, &[5])];
    let plan = plan(tensors, &[("layers", "3,0"), ("n_layers", "6")]).unwrap();
    let names: Vec<String> = plan.capture.hooks.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["blocks.0.hook_resid_post", "blocks.3.hook_resid_post"]);
    assert_eq!((plan.sources[0].data.clone(), plan.sources[1].data.clone()), (80..160, 0..80));
    assert_eq!((plan.n_tokens, plan.n_layers, plan.d_model), (5, 6, 8));
    assert_eq!((plan.capture.positions, plan.capture.dtype), (Positions::All, Dtype::Float16));
}

#[test]
fn positions_take_the_form_that_the_tensors_have() {
    let rows = |shape: &'static [usize], given: &[(&'static str, &str)]| {
        plan(&[("blocks.1.hook_resid_post", "F32", 4, shape)], given).unwrap()
    };
    for (shape, given, expected, n_tokens) in [
        (&[8][..], &[][..], Positions::Last, 1),
        (&[8], &[("n_tokens", "4")], Positions::Last, 4),
        (&[8], &[("positions", "[2]")], Positions::One(2), 3),
        (&[8], &[("positions", "mean"), ("n_tokens", "4")], Positions::Mean, 4),
        (&[3, 8], &[], Positions::All, 3),
        (&[1, 8], &[("positions", "last"), ("n_tokens", "9")], Positions::List(vec![-1]), 9),
        (&[2, 8], &[("positions", "0,6")], Positions::List(vec![0, 6]), 7),
        (&[2, 8], &[("positions", "-2:"), ("n_tokens", "5")], Positions::Range { start: Some(-2), end: None }, 5),
    ] {
        let plan = rows(shape, given);
        assert_eq!((plan.capture.positions, plan.n_tokens), (expected, n_tokens), "{shape:?} {given:?}");
    }
}

#[test]
fn types_are_kept_widened_or_asked_for() {
    let (a, b) = (("hook_embed", "F16", 2, &[3, 8][..]), ("final_norm", "BF16", 2, &[3, 8][..]));
    assert_eq!(plan(&[a], &[]).unwrap().capture.dtype, Dtype::Float16);
    assert_eq!(plan(&[a, b], &[]).unwrap().capture.dtype, Dtype::Float32);
    let wide = ("hook_embed", "F64", 8, &[3, 8][..]);
    assert_eq!(refused(&[wide], &[]), (Code::InvalidValue, "/hook_embed".to_owned()));
    let rounded = plan(&[wide], &[("dtype", "float32")]).unwrap();
    assert_eq!((rounded.capture.dtype, rounded.file_dtypes()), (Dtype::Float32, vec!["F64".to_owned()]));
}

#[test]
fn what_does_not_fit_is_refused_where_it_stands() {
    let resid = ("blocks.0.hook_resid_post", "F32", 4, &[3, 8][..]);
    let ids = ("token_ids", "I32", 4, &[3][..]);
    for (tensors, given, code, pointer) in [
        (&[ids][..], &[][..], Code::EmptyInput, ""),
        (&[("logit_lens", "F32", 4, &[3, 8])], &[], Code::UnknownHook, "/logit_lens"),
        (&[("blocks.0.hook_resid_post", "F32", 4, &[1, 3, 8])], &[], Code::ShapeMismatch, "/blocks.0.hook_resid_post"),
        (&[resid, ("hook_embed", "F32", 4, &[4, 8])], &[], Code::ShapeMismatch, "/blocks.0.hook_resid_post"),
        (&[resid, ("final_norm", "F32", 4, &[8])], &[], Code::ShapeMismatch, "/final_norm"),
        (&[resid, ("final_norm", "F32", 4, &[3, 9])], &[], Code::ShapeMismatch, "/final_norm"),
        (&[resid, ("blocks.0.hook_out", "F32", 4, &[3, 8])], &[], Code::InvalidValue, "/blocks.0.hook_out"),
        (&[resid, ("token_ids", "I32", 4, &[4])], &[], Code::ShapeMismatch, "positions"),
        (&[resid, ("token_ids", "I32", 4, &[1, 3])], &[], Code::ShapeMismatch, "/token_ids"),
        (&[resid, ids], &[("n_tokens", "4")], Code::ShapeMismatch, "/n_tokens"),
        (&[resid], &[("d_model", "9")], Code::ShapeMismatch, "/blocks.0.hook_resid_post"),
        (&[resid], &[("positions", "0,1")], Code::ShapeMismatch, "positions"),
        (&[resid], &[("positions", "0,1,3"), ("n_tokens", "3")], Code::PositionOutOfRange, "positions"),
        (&[resid], &[("positions", "-3:")], Code::InvalidValue, "n_tokens"),
        (&[("resid_post", "F32", 4, &[2, 3, 8])], &[("layers", "1")], Code::ShapeMismatch, "/resid_post"),
        (&[("resid_post", "F32", 4, &[2, 3, 8])], &[("n_layers", "6")], Code::ShapeMismatch, "/resid_post"),
        (
            &[("resid_post", "F32", 4, &[2, 8])],
            &[("layers", "4,9"), ("n_layers", "9")],
            Code::LayerOutOfRange,
            "n_layers",
        ),
        (&[("attn.pattern", "F32", 4, &[1, 2, 3, 3])], &[], Code::InvalidQuery, "d_model"),
        (&[("blocks.0.ln1.hook_scale", "F32", 4, &[3, 2])], &[], Code::ShapeMismatch, "/blocks.0.ln1.hook_scale"),
        (&[("resid_post", "I32", 4, &[2, 3, 8])], &[], Code::InvalidValue, "/resid_post"),
        (
            &[("blocks.0.mlp.hook_expert_indices", "F32", 4, &[2])],
            &[("positions", "mean"), ("n_tokens", "3"), ("d_model", "8")],
            Code::InvalidValue,
            "/positions",
        ),
        (&[resid], &[("n_tokens", "0")], Code::InvalidQuery, "n_tokens"),
        (&[resid], &[("layers", "0,0")], Code::InvalidQuery, "layers"),
        (&[resid], &[("model", "")], Code::InvalidQuery, "model"),
    ] {
        assert_eq!(refused(tensors, given), (code, pointer.to_owned()), "{tensors:?} {given:?}");
    }
}

#[test]
fn attention_maps_tell_the_number_of_tokens() {
    let plan = plan(
        &[("blocks.0.attn.hook_pattern", "F32", 4, &[2, 1, 6][..]), ("blocks.0.hook_resid_post", "F32", 4, &[1, 8])],
        &[("positions", "last")],
    )
    .unwrap();
    assert_eq!((plan.n_tokens, plan.sources[0].row_shape.clone()), (6, vec![2]));
}

#[test]
fn the_request_beats_the_file_and_nothing_is_lost() {
    let file = [("model", "theirs"), ("text", "hello"), ("format", "pt"), ("device", "mps")];
    let file = file.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let spec = ImportSpec::read([("model", "ours".to_owned())].into(), file).unwrap();
    assert_eq!(
        (spec.model.as_str(), spec.text.as_deref(), spec.provenance.device.as_str()),
        ("ours", Some("hello"), "mps")
    );
    assert_eq!(json!(spec.rest), json!({"model": "theirs", "format": "pt"}));
    let wrong = ImportSpec::read([("model", "m".to_owned())].into(), [("tokens".to_owned(), "a b".to_owned())].into());
    assert_eq!(wrong.unwrap_err().errors[0].pointer, "/__metadata__/tokens");
}

#[test]
fn ids_are_read_or_refused() {
    let header = header(&[("hook_embed", "F32", 4, &[2, 8][..]), ("token_ids", "I64", 8, &[2])]);
    let spec = spec(&[]).unwrap();
    let plan = ImportPlan::new(&header, &spec).unwrap();
    let origin = ImportOrigin { file_hash: String::new(), file_bytes: 0, file_dtypes: vec![], metadata: Map::new() };
    let bytes = |ids: [i64; 2]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    let item = plan.item(&spec, &bytes([7, 0]), origin.clone()).unwrap();
    assert_eq!((item.token_ids, item.tokens), (vec![7, 0], vec![String::new(), String::new()]));
    for ids in [[-1, 0], [0, i64::from(u32::MAX)], [0, 1 << 40]] {
        assert_eq!(plan.item(&spec, &bytes(ids), origin.clone()).unwrap_err().code, Code::InvalidValue, "{ids:?}");
    }
}

/// A header that says much, for mutation.
const MUCH: &str = r#"{"__metadata__":{"model":"m","positions":"0,2","layers":"1,3","n_tokens":"4","n_layers":"5","d_model":"6",
"tokens":"[\"a\",\"b\",\"c\",\"d\"]","n_truncated":"1","bos":"{\"present\":true,\"added\":false,\"token_id\":1}"},
"resid_post":{"dtype":"F16","shape":[2,2,6],"data_offsets":[0,48]},
"blocks.1.attn.hook_pattern":{"dtype":"F32","shape":[3,2,4],"data_offsets":[48,144]},
"token_ids":{"dtype":"I32","shape":[4],"data_offsets":[144,160]}}"#;

proptest::proptest! {
    #[test]
    fn mutated_files_are_refused_or_make_a_cache(
        edits in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0..12u8), 0..4),
    ) {
        let mut bytes = MUCH.as_bytes().to_vec();
        for (at, digit) in edits {
            // digits and signs, where numbers are said and names are spelled
            let at = at.index(bytes.len());
            match digit {
                10 => bytes[at] = b'-',
                11 => { bytes.remove(at); }
                digit => bytes[at] = b'0' + digit,
            }
        }
        let Ok(header) = FileHeader::parse(&bytes) else { return Ok(()) };
        let read = ImportSpec::read(Given::new(), header.metadata.clone());
        let Ok((spec, plan)) = read.and_then(|spec| ImportPlan::new(&header, &spec).map(|plan| (spec, plan))) else { return Ok(()) };
        let n_ids = plan.token_ids.as_ref().map_or(0, |(data, _)| data.end - data.start);
        let origin = ImportOrigin { file_hash: String::new(), file_bytes: 0, file_dtypes: plan.file_dtypes(), metadata: Map::new() };
        let item = plan.item(&spec, &vec![0; usize::try_from(n_ids).unwrap()], origin).unwrap();
        let rows = item.capture.positions.resolve(item.token_ids.len()).unwrap();
        proptest::prop_assert_eq!(item.tokens.len(), item.token_ids.len());
        for (hook, source) in item.capture.hooks.iter().zip(&plan.sources) {
            let cells = if hook.site().is_attention_map() { item.token_ids.len() } else { 1 };
            let n: usize = source.row_shape.iter().product::<usize>() * rows.len() * cells;
            proptest::prop_assert_eq!(source.data.end - source.data.start, (n * source.dtype.size()) as u64);
            proptest::prop_assert!(source.data.end <= header.data_len);
        }
    }
}
