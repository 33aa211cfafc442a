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
fn every_weight_belongs_to_one_term() {
    let terms = Terms { val_kl: 1.0, label_ce: 2.0, margin: 3.0, distribution: 4.0, feature_mse: 5.0, feature_kl: 6.0 };
    let named: Vec<(&str, f64)> = active(&terms).into_iter().map(|(term, weight)| (term.name, weight)).collect();
    let table = toml::Table::try_from(&terms).unwrap();
    assert_eq!(named.len(), table.len());
    for (name, weight) in named {
        assert_eq!(table[name].as_float(), Some(weight), "{name}");
    }
}
