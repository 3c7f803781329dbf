"""MLflow's own client of its scoring server, against a server whose address is the argument."""

import json
import sys

import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

HOST, PORT = sys.argv[1].split(":")
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


def expect(came: object, wanted: object) -> None:
    if came != wanted:
        raise SystemExit(f"{came!r} came, {wanted!r} was wanted")


def main() -> None:
    client = ScoringServerClient(HOST, int(PORT))
    client.ping()
    client.wait_server_ready(timeout=5)
    frame = pd.DataFrame(ROWS, columns=["sepal_length", "sepal_width", "petal_length", "petal_width"])
    for given in (frame, frame[frame.columns[::-1]], np.array(ROWS), json.dumps({"instances": ROWS})):
        came = client.invoke(given).get_predictions()
        expect(np.asarray(came).ravel().tolist(), [0, 2])
    expect(np.asarray(client.invoke(frame, params={"a": 1}).get_predictions()).ravel().tolist(), [0, 2])
    try:
        client.invoke(frame.drop(columns="petal_width"))
    except Exception as refusal:  # noqa: BLE001 - MLflow raises no other here
        if "lacks the column petal_width" not in str(refusal).replace("'", ""):
            raise SystemExit(f"it said {refusal}") from None
    else:
        raise SystemExit("a frame without a column was not refused")
    print("as expected")


if __name__ == "__main__":
    main()
