//! `POST /v1/directions`.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::{
    examples::{self, MAX_CACHES, TwoClasses},
    fit::{Fit, fit},
    request::{MeansRequest, NewDirection, PcaRequest, Posted, ProbeRequest},
    upload,
};
use crate::api::{
    dto::direction::{DirectionDto, DirectionQuery},
    error::ApiResult,
    extract::{JsonBody, Query, Tenant},
    problems::CreateDirectionProblems,
    state::ApiState,
};
use residuum_analysis::probe::ProbeSettings;
use residuum_domain::{
    Code, Direction, DirectionId, DirectionInfo, DirectionMethod, DirectionVector, Layers, Positions, Problem, Site,
    TenantId,
};
use residuum_engine::questions::{Chosen, deleted_caches::again};

/// Values that all vectors of one direction have together.
pub const MAX_VALUES: usize = 4_000_000;

/// A direction without its name.
pub struct Made {
    /// The model, where it is known.
    pub model: Option<String>,
    /// The hook without its layer.
    pub site: Site,
    /// Vectors a layer.
    pub n_components: usize,
    /// By layer and component.
    pub vectors: Vec<DirectionVector>,
    /// What made it.
    pub provenance: Map<String, Value>,
}

/// Make a direction
///
/// From values that are posted, or fitted to the vectors of stored caches at one position, all layers in one call: the difference
/// of two classes' means, principal components, or a logistic-regression probe. Caches must be of one model. The answer has what
/// describes each vector; the values are at `/vector`.
#[utoipa::path(
    post, path = "/v1/directions", operation_id = "createDirection", tag = "directions", params(DirectionQuery),
    request_body = NewDirection,
    responses(
        (status = 201, description = "The direction", body = DirectionDto, headers(("Location" = String, description = "Path of the direction"))),
        CreateDirectionProblems
    )
)]
pub async fn create_direction(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(query): Query<DirectionQuery>,
    body: JsonBody<Posted>,
) -> ApiResult<Response> {
    let Posted { request, written } = body.value;
    let (name, metadata) = request.annotations();
    let (name, metadata) = (name.to_owned(), metadata.clone());
    if state.engine.store().direction_info(tenant, &name).await?.is_some() {
        return Err(taken(&name).into());
    }
    let method = method(&request);
    let made = match request {
        NewDirection::Upload(upload) => upload::made(upload)?,
        fitted => again(Code::UnknownCache, async || make(&state, tenant, fitted.clone(), &written).await).await?,
    };
    let direction = named(made, tenant, name, method, metadata);
    if !state.engine.store().insert_direction(direction.clone()).await? {
        return Err(taken(&direction.info.name).into());
    }
    let location = HeaderValue::from_str(&format!("/v1/directions/{}", direction.info.id))
        .map_err(|_| Problem::new(Code::Internal, "a header could not be written"))?;
    let dto = DirectionDto::new(direction, query.include);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(dto)).into_response())
}

fn taken(name: &str) -> Problem {
    Problem::at(Code::Conflict, "/name", format!("there is a direction named {name}; delete it or take another name"))
}

fn method(request: &NewDirection) -> DirectionMethod {
    match request {
        NewDirection::Upload(_) => DirectionMethod::Upload,
        NewDirection::DifferenceOfMeans(_) => DirectionMethod::DifferenceOfMeans,
        NewDirection::Pca(_) => DirectionMethod::Pca,
        NewDirection::Probe(_) => DirectionMethod::Probe,
    }
}

fn named(
    made: Made,
    tenant: TenantId,
    name: String,
    method: DirectionMethod,
    metadata: Map<String, Value>,
) -> Direction {
    let layers: BTreeSet<usize> = made.vectors.iter().filter_map(|v| v.layer).collect();
    let mut provenance = Map::new();
    provenance.insert("residuum_version".to_owned(), env!("CARGO_PKG_VERSION").into());
    provenance.extend(made.provenance);
    let now = jiff::Timestamp::now();
    let info = DirectionInfo {
        id: DirectionId::generate(),
        tenant,
        name,
        method,
        model: made.model,
        site: made.site,
        layers: layers.into_iter().collect(),
        n_components: made.n_components,
        d: made.vectors.first().map_or(0, |v| v.values.len()),
        metadata,
        provenance,
        // the index keeps microseconds
        created_at: jiff::Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now),
    };
    Direction { info, vectors: made.vectors }
}

async fn make(
    state: &ApiState,
    tenant: TenantId,
    request: NewDirection,
    body: &Map<String, Value>,
) -> Result<Made, Problem> {
    match request {
        NewDirection::Upload(r) => upload::made(r),
        NewDirection::DifferenceOfMeans(r) => by_means(state, tenant, r, body).await,
        NewDirection::Pca(r) => by_pca(state, tenant, r, body).await,
        NewDirection::Probe(r) => by_probe(state, tenant, r, body).await,
    }
}

async fn by_means(
    state: &ApiState,
    tenant: TenantId,
    r: MeansRequest,
    body: &Map<String, Value>,
) -> Result<Made, Problem> {
    let classes = TwoClasses {
        positive: r.positive.as_ref(),
        negative: r.negative.as_ref(),
        caches: r.caches.as_ref(),
        target: r.target.as_ref(),
    };
    let (chosen, labels) = classes.choose(state.engine.store(), tenant).await?;
    let mut provenance = examples::provenance(&chosen, body);
    count_classes(&mut provenance, &labels);
    provenance.insert("parameters".to_owned(), json!({"normalize": r.normalize}));
    let fit = Fit::Means { labels, normalize: r.normalize };
    fitted(state, &chosen, Place { hook: &r.hook, layers: &r.layers, position: &r.position }, fit, provenance).await
}

async fn by_pca(state: &ApiState, tenant: TenantId, r: PcaRequest, body: &Map<String, Value>) -> Result<Made, Problem> {
    if r.k == 0 {
        return Err(Problem::at(Code::InvalidValue, "/k", "k is 0; ask for at least one component"));
    }
    let chosen = r.caches.selector("/caches")?.choose(state.engine.store(), tenant, "/caches", MAX_CACHES).await?;
    examples::distinct(&chosen)?;
    let mut provenance = examples::provenance(&chosen, body);
    provenance.insert("parameters".to_owned(), json!({"k": r.k, "center": r.center}));
    let fit = Fit::Pca { k: r.k, center: r.center };
    fitted(state, &chosen, Place { hook: &r.hook, layers: &r.layers, position: &r.position }, fit, provenance).await
}

async fn by_probe(
    state: &ApiState,
    tenant: TenantId,
    r: ProbeRequest,
    body: &Map<String, Value>,
) -> Result<Made, Problem> {
    let settings = settings(&r)?;
    let classes = TwoClasses {
        positive: r.positive.as_ref(),
        negative: r.negative.as_ref(),
        caches: r.caches.as_ref(),
        target: r.target.as_ref(),
    };
    let (chosen, labels) = classes.choose(state.engine.store(), tenant).await?;
    let n_positive = labels.iter().filter(|l| **l).count();
    let smaller = n_positive.min(labels.len() - n_positive);
    if smaller < r.folds {
        let detail = format!("the smaller class has {smaller} caches, too few for {} folds", r.folds);
        return Err(Problem::at(Code::InvalidValue, "/folds", detail));
    }
    let mut provenance = examples::provenance(&chosen, body);
    count_classes(&mut provenance, &labels);
    let parameters = json!({"c": r.c, "folds": r.folds, "seed": r.seed, "shuffles": r.shuffles});
    provenance.insert("parameters".to_owned(), parameters);
    let fit = Fit::Probe { labels, settings };
    fitted(state, &chosen, Place { hook: &r.hook, layers: &r.layers, position: &r.position }, fit, provenance).await
}

fn settings(r: &ProbeRequest) -> Result<ProbeSettings, Problem> {
    let refuse = |field: &str, detail: &str| Err(Problem::at(Code::InvalidValue, field, detail));
    if !(1e-6..=1e6).contains(&r.c) {
        return refuse("/c", "c must lie between 1e-6 and 1e6");
    }
    if !(2..=20).contains(&r.folds) {
        return refuse("/folds", "folds must lie between 2 and 20");
    }
    if !(1..=20).contains(&r.shuffles) {
        return refuse("/shuffles", "shuffles must lie between 1 and 20");
    }
    Ok(ProbeSettings { c: r.c, folds: r.folds, seed: r.seed, shuffles: r.shuffles })
}

fn count_classes(provenance: &mut Map<String, Value>, labels: &[bool]) {
    let n_positive = labels.iter().filter(|l| **l).count();
    provenance.insert("n_positive".to_owned(), n_positive.into());
    provenance.insert("n_negative".to_owned(), (labels.len() - n_positive).into());
}

/// Which vectors of the caches.
struct Place<'a> {
    hook: &'a str,
    layers: &'a Layers,
    position: &'a Positions,
}

async fn fitted(
    state: &ApiState,
    chosen: &Chosen,
    place: Place<'_>,
    what: Fit,
    mut provenance: Map<String, Value>,
) -> Result<Made, Problem> {
    if place.position.keeps_axis() {
        let detail = "a direction is fitted at one position: an integer, \"last\" or \"mean\"";
        return Err(Problem::at(Code::InvalidValue, "/position", detail));
    }
    let (model, fingerprint) = examples::model(chosen)?;
    let mut hooks = chosen.hooks(place.hook, place.layers)?;
    hooks.sort();
    let site = hooks[0].site();
    if site.is_index() {
        let detail = format!("{} holds indices, which have no direction", site.name());
        return Err(Problem::at(Code::InvalidValue, "/hook", detail));
    }
    let n_components = what.n_components();
    let fingerprint = Some(fingerprint).filter(|f| !f.is_empty());
    provenance.insert("model_fingerprint".to_owned(), fingerprint.into());
    provenance.insert("position".to_owned(), json!(place.position));
    let vectors = fit(state, chosen, &hooks, place.position, what).await?;
    Ok(Made { model: Some(model), site, n_components, vectors, provenance })
}
