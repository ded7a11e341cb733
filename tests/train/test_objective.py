"""Contract 4. The loss is the written formula; distillation changes the student alone."""

import pytest
import torch
import torch.nn.functional as F

import pliant
from pliant.core.plan import Plan, Term
from pliant.plans import LABELS, build_plan


@pytest.fixture
def model():
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth()).eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, 3, 32, 32, generator=generator), torch.tensor([0, 3, 9, 3])


def test_algorithm_1_is_the_written_formula(model, batch):
    """alpha CE(super, y) + (1 - alpha) [sum over stages KL(h_super || h_base) + KL(super || base)]."""
    images, labels = batch
    alpha, temperature, top_k = 0.3, 2.0, 4
    loss = pliant.Objective(model, build_plan("adn", model.space, alpha=alpha, temperature=temperature, top_k=top_k))(
        images, labels
    )

    super_logits, super_features = model(images, features=True)
    base_logits, base_features = model(images, subnet="smallest", features=True)

    def divergence(teacher, student):
        p, q = F.softmax(teacher / temperature, 1), F.softmax(student / temperature, 1)
        return (p * (p.log() - q.log())).sum(1).mean() * temperature**2

    best = super_logits.argsort(1, descending=True)[:, :top_k]
    distillation = divergence(super_logits.gather(1, best), base_logits.gather(1, best))
    for teacher, student in zip(super_features, base_features, strict=True):
        distillation = distillation + divergence(teacher, student)
    cross_entropy = -F.log_softmax(super_logits, 1)[torch.arange(4), labels].mean()
    torch.testing.assert_close(loss, alpha * cross_entropy + (1 - alpha) * distillation)


def test_the_sum_is_twice_the_average_at_alpha_one_half(model, batch):
    average = pliant.Objective(model, build_plan("adn", model.space))(*batch)
    total = pliant.Objective(model, build_plan("adn-sum", model.space, features=True))(*batch)
    torch.testing.assert_close(total, 2 * average)


def test_distillation_does_not_reach_the_super_net_alone(model, batch):
    """What only the super-net uses learns from the labels alone: the teacher is detached."""
    plan = build_plan("adn", model.space)
    pliant.Objective(model, plan)(*batch).backward()
    with_distillation = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    pliant.Objective(model, Plan(name="labels", terms=plan.terms[:1]))(*batch).backward()
    for name in ("layer1.2.conv1.weight", "layer2.2.bn1.weight", "layer1.0.bn1.weight"):
        torch.testing.assert_close(model.get_parameter(name).grad, with_distillation[name])
    assert model.get_parameter("layer1.0.bn1.skip.weight").grad is None
    assert with_distillation["layer1.0.bn1.skip.weight"].abs().sum() > 0
    assert not torch.equal(
        model.get_parameter("layer1.0.conv1.weight").grad, with_distillation["layer1.0.conv1.weight"]
    )


def test_the_terms_are_reported_and_add_up(model, batch):
    objective = pliant.Objective(model)
    loss = objective(*batch)
    torch.testing.assert_close(sum(objective.terms.values()), loss.detach())
    assert "FFF<-labels" in objective.terms


def test_more_classes_asked_for_than_there_are_means_all(model, batch):
    every, too_many, two = (
        pliant.Objective(model, build_plan("adn", model.space, top_k=top_k))(*batch) for top_k in (None, 500, 2)
    )
    torch.testing.assert_close(too_many, every)
    assert not torch.allclose(two, every)


def test_a_term_that_starts_late_costs_nothing_before(model, batch):
    objective = pliant.Objective(model, build_plan("adn-sum", model.space, features=True, base_start=0.5))
    objective(*batch)
    assert list(objective.terms) == ["FFF<-labels"]
    objective.progress = 0.5
    objective(*batch)
    assert list(objective.terms) == ["FFF<-labels", "TTT<-FFF/logits", "TTT<-FFF/features"]


def test_a_chain_of_teachers_runs_every_sub_network_once(model, batch):
    plan = Plan(
        name="chain",
        terms=(
            Term(student="TTT", teacher="TFF", on="logits"),
            Term(student="TFF", teacher="largest", on="logits"),
            Term(student="largest"),
        ),
    )
    ran = []
    forward = type(model).forward

    class Spy(type(model)):
        def forward(self, *args, subnet=None, **kwargs):
            ran.append(subnet)
            return forward(self, *args, subnet=subnet, **kwargs)

    model.__class__ = Spy
    pliant.Objective(model, plan)(*batch)
    assert ran == ["FFF", "TFF", "TTT"]


def test_soft_labels_are_taken(model, batch):
    images, labels = batch
    hard = pliant.Objective(model)(images, labels)
    soft = pliant.Objective(model)(images, F.one_hot(labels, 10).float())
    torch.testing.assert_close(hard, soft)


def test_a_plain_network_learns_from_the_labels_only_and_on_request(batch):
    network = pliant.create_model("pliant:resnet20").eval()
    images, labels = batch
    with pytest.raises(ValueError, match=r"ResNet has no sub-networks; .*pliant.adapt_, .*plan=pliant.plans.LABELS"):
        pliant.Objective(network)
    loss = pliant.Objective(network, LABELS)(images, labels)
    torch.testing.assert_close(loss, F.cross_entropy(network(images), labels))
    for plan in (Plan(name="p", terms=(Term(student="smallest"),)), "p"):
        with pytest.raises(ValueError, match=r"plan: got 'p', expected pliant.plans.LABELS"):
            pliant.Objective(network, plan)


def test_sequential_backward_holds_one_pass_at_a_time(model, batch):
    """Peak of the activations that autograd keeps: sequential needs no more than the super-net's own step."""

    def peak(run) -> int:
        held, most = 0, 0

        class Saved:
            def __init__(self, tensor):
                nonlocal held, most
                self.tensor, self.bytes = tensor, tensor.numel() * tensor.element_size()
                held += self.bytes
                most = max(most, held)

            def __del__(self):
                nonlocal held
                held -= self.bytes

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            run()
        assert held == 0
        return most

    model.train()
    images, labels = batch
    objective = pliant.Objective(model)
    joint = peak(lambda: objective(images, labels).backward())
    sequential = peak(lambda: objective.backward(images, labels))
    alone = peak(lambda: F.cross_entropy(model(images), labels).backward())
    assert sequential <= 1.05 * alone
    assert joint > 1.4 * alone


@pytest.fixture
def views(batch):
    """Two views of a batch."""
    images, labels = batch
    return images, labels, images.flip(3) + 0.1


def divergence(student, teacher):
    own, other = (F.log_softmax(logits, 1) for logits in (student, teacher.detach()))
    return F.kl_div(own, other, reduction="batchmean", log_target=True)


def test_students_see_a_view_of_their_own(model, views):
    images, labels, students = views
    objective = pliant.Objective(model, build_plan("adn-sum", model.space))
    loss = objective(images, labels, students)
    expected = F.cross_entropy(model(images), labels) + divergence(model(students, subnet="smallest"), model(images))
    torch.testing.assert_close(loss, expected)
    assert not torch.allclose(objective(images, labels), expected)


def test_another_network_teaches_from_the_first_view(model, views):
    images, labels, students = views
    teacher = pliant.create_model("pliant:resnet20").eval()
    plan = Plan(
        name="chain",
        terms=(
            Term(student="largest"),
            Term(student="TFF", teacher="largest", on="logits"),
            Term(student="TFF"),  # who learns from a teacher too sees the students' view for both
        ),
    )
    loss = pliant.Objective(model, plan, teacher=teacher)(images, labels, students)
    student = model(students, subnet="TFF")
    expected = F.cross_entropy(model(images), labels) + divergence(student, teacher(images))
    torch.testing.assert_close(loss, expected + F.cross_entropy(student, labels))


@pytest.mark.parametrize("plan", ["adn", "sandwich", "slimmable"])
def test_both_ways_backward_give_the_same_gradients_with_two_views(views, plan):
    network = pliant.create_model("pliant:resnet20", shortcut="projection")
    widths = (pliant.Width(choices=(0.25, 0.5, 0.75, 1.0)),)
    model = pliant.adapt_(network, *(widths if plan != "adn" else (pliant.Depth(),))).eval()
    options = {"labels": 0.0} if plan == "slimmable" else {}
    objective = pliant.Objective(model, build_plan(plan, model.space, **options))
    gradients = []
    for run in (lambda: objective(*views).backward(), lambda: objective.backward(*views)):
        model.zero_grad()
        torch.manual_seed(0)
        run()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    joint, sequential = gradients
    assert joint.keys() == sequential.keys()
    for name, gradient in joint.items():
        torch.testing.assert_close(sequential[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_one_pass_of_teacher_and_student_cannot_see_two_views(views):
    def refused(model, plan, message):
        with pytest.raises(ValueError, match=message) as refusal:
            pliant.Objective(model, plan)(*views)
        assert "\n" not in str(refusal.value)

    depths = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth()).eval()
    exits = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Exits()).eval()
    refused(
        depths, build_plan("no-distillation", depths.space), "in plan 'no-distillation' nobody learns from a teacher"
    )
    chain = Plan(
        name="chain",
        terms=(
            Term(student="largest"),
            Term(student="TFF", teacher="largest", on="logits"),
            Term(student="TTT", teacher="TFF", on="logits"),
        ),
    )
    refused(depths, chain, "one pass answers for the student of 'TFF<-FFF/logits' and the teacher of 'TTT<-TFF/logits'")
    shared = build_plan("one-for-all", exits.space)
    refused(exits, shared, "one pass answers for the student of 'exit=1<-exit=3/logits' and the teacher of")
    teacher = pliant.create_model("pliant:resnet20").eval()
    pliant.Objective(exits, shared, teacher=teacher)(*views).backward()
