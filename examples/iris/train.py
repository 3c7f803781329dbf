"""Trains the example's model: three species of iris from four measurements; writes models/model.joblib here."""

from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    rows, species = load_iris(return_X_y=True)
    train_rows, test_rows, train_species, test_species = train_test_split(rows, species, stratify=species, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train_rows, train_species)
    target = Path(__file__).resolve().parent / "models" / "model.joblib"
    target.parent.mkdir(exist_ok=True)
    joblib.dump(model, target)
    accuracy = model.score(test_rows, test_species)
    print(f"trained on {len(train_rows)} flowers, right on {accuracy:.0%} of {len(test_rows)} others", end="; ")
    print(f"wrote models/{target.name}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
