use super::*;
use crate::arch;
use crate::ops::check::{central_difference, noise};
use candle_core::{DType, Var};

fn meta() -> Meta {
    Meta { eps: 10.0, ..Meta::published(arch::find("resnet20").unwrap()) }
}

/// The loss of `term` as a function of what it is differentiated by, beside something of the same shape.
fn loss(term: &Term, at: &Tensor, other: &Tensor) -> Result<Tensor> {
    match &term.loss {
        Loss::Outer(loss) => loss(&Outer { logits_q: at, logits_fp: other, labels: &[1, 0, 3] }, &meta()),
        Loss::Images(loss) => loss(&Images { x: other, t_x: at }, &meta()),
        Loss::Features { loss, .. } => loss(&Features { of_x: other, of_t_x: at }),
    }
}

#[test]
fn gradients_are_central_differences() {
    for term in TERMS {
        let other = noise((3, 4), 1, DType::F64);
        let vars = [Var::from_tensor(&noise((3, 4), 2, DType::F64)).unwrap()];
        let gradients = loss(term, vars[0].as_tensor(), &other).unwrap().backward().unwrap();
        let exact = gradients.get(&vars[0]).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let numeric = central_difference(&vars, 0, |vars| loss(term, vars[0].as_tensor(), &other));
        for (exact, numeric) in exact.iter().zip(numeric) {
            assert!((exact - numeric).abs() < 1e-8, "{}: {exact} {numeric}", term.name);
        }
    }
}

#[test]
fn cross_entropy_refuses_labels_that_do_not_fit() {
    let logits = noise((2, 4), 1, DType::F32);
    for labels in [&[0][..], &[0, 4]] {
        let outer = Outer { logits_q: &logits, logits_fp: &logits, labels };
        assert!(label_ce::loss(&outer, &meta()).is_err());
    }
}

#[test]
fn terms_are_written_in_the_order_of_their_table_and_read_back() {
    let text = toml::to_string(&Terms::published()).unwrap();
    assert!(text.starts_with("val-kl = 5.0\nlabel-ce = 0.0\nmargin = 0.5\n"), "{text}");
    assert_eq!(toml::from_str::<Terms>(&text).unwrap(), Terms::published());
}

#[test]
fn a_term_that_came_later_is_written_only_where_it_has_a_weight() {
    for term in TERMS {
        let mut terms = Terms::all(1.0);
        terms.set(term, 0.0);
        let text = toml::to_string(&terms).unwrap();
        assert_eq!(text.contains(&format!("{} =", term.name)), term.is_always_written, "{text}");
        assert_eq!(toml::from_str::<Terms>(&text).unwrap(), terms);
        assert_eq!(active(&terms).len(), TERMS.len() - 1);
    }
}

#[test]
fn overrides_set_what_they_name_and_unknown_terms_are_refused_by_name() {
    let mut over: TermsOverride = toml::from_str("margin = 1\nval-kl = 0.0").unwrap();
    over.merge(&toml::from_str("val-kl = 2.5").unwrap());
    let mut terms = Terms::published();
    over.apply(&mut terms);
    assert_eq!([terms.weight("margin"), terms.weight("val-kl"), terms.weight("distribution")], [1.0, 2.5, 3e4]);
    assert_eq!(terms.departures(&Terms::published()), ["val-kl", "margin"]);
    assert_eq!(toml::to_string(&over).unwrap(), "val-kl = 2.5\nmargin = 1.0\n");
    let problem = toml::from_str::<TermsOverride>("margn = 1.0").unwrap_err();
    assert_eq!(problem.span(), Some(0..5));
    assert!(problem.message().starts_with("unknown field `margn`, expected one of `val-kl`, "), "{problem}");
    let problem = toml::from_str::<Terms>("val-kl = 5.0").unwrap_err().to_string();
    assert!(problem.contains("missing field `label-ce`"), "{problem}");
}
