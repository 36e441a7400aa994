"""What was trained: pages know the same networks as trainings do, and a key that names none is of LeNet."""

from bench.record.networks import TITLES, by_network, network_of, title_of
from bench.session.options import CELL_SECONDS
from bench.view.training_tables import STUDIES
from bench.view.trainings import GOALS
from models.recipes import RECIPES


def test_pages_and_options_know_the_networks_that_can_be_trained():
    for known in (TITLES, GOALS, STUDIES, CELL_SECONDS):
        assert list(known) == list(RECIPES)


def test_all_measurements_but_trainings_of_another_network_are_lenets(session):
    session.step("naive")
    session.training("naive", [1.0])
    session.training("naive", [1.0], network="resnet20")
    assert [network_of(r) for r in session.records] == ["lenet", "lenet", "resnet20"]
    assert [title_of(r) for r in session.records] == ["LeNet", "LeNet", "ResNet-20"]
    assert {n: len(records) for n, records in by_network(session.records).items()} == {"lenet": 2, "resnet20": 1}


def test_networks_are_in_the_order_of_the_pages(session):
    session.training("naive", [1.0], network="resnet20")
    session.training("naive", [1.0])
    assert list(by_network(session.records)) == ["lenet", "resnet20"]
