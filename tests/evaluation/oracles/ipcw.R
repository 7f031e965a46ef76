# Numbers weighed by censoring, of whole-year times, by riskRegression::Score and survival::concordance.
suppressMessages({library(survival); library(prodlim); library(riskRegression)})
here <- commandArgs(TRUE)[1]
d <- read.csv(file.path(here, "years.csv"))
say <- function(number, at, value) cat(sprintf("%s,%s,%.17g\n", number, at, value), sep = "")
cat("number,at,value\n")

# AUC(t) and Brier score of curves given by a formula.
times <- c(1, 2, 3.5, 5, 6)
curves <- exp(-0.1 * outer(exp(d$risk), times))
scored <- function(curves, times) Score(list(model = 1 - curves), formula = Surv(time, event) ~ 1,
  data = data.frame(d),  # Score turns what it is given into a data.table
  times = times, metrics = c("auc", "brier"), se.fit = FALSE, contrasts = FALSE, null.model = FALSE, cens.model = "km")
s <- scored(curves, times)
say("auc", times, s$AUC$score$AUC)
say("brier", times, s$Brier$score$Brier)

# Integrated Brier score of the other folds' Kaplan-Meier curves, by the trapezoid rule.
tau <- min(quantile(d$time, 0.9), max(d$time[d$time < max(d$time)]))
grid <- seq(quantile(d$time[d$event == 1], 0.1), tau, length.out = 20)
km <- matrix(0, nrow(d), 20)
for (fold in unique(d$fold)) {
  others <- d[d$fold != fold, ]
  fit <- survfit(Surv(time, event) ~ 1, data = others)
  km[d$fold == fold, ] <- rep(stepfun(fit$time, c(1, fit$surv))(grid), each = sum(d$fold == fold))
}
b <- scored(km, grid)$Brier$score$Brier
say("ibs_km", "", sum(diff(grid) * (head(b, -1) + tail(b, -1)) / 2) / (tau - grid[1]))

# The same with Cox regressions on the standardised risk, a ridge of 1e-3, Breslow's baseline.
d$z <- ave(d$risk, d$fold, FUN = function(v) (v - mean(v)) / sqrt(mean((v - mean(v))^2)))
cox <- km
for (fold in unique(d$fold)) {
  others <- d[d$fold != fold, ]
  fit <- coxph(Surv(time, event) ~ ridge(z, theta = 1e-3, scale = FALSE), data = others, ties = "breslow",
    control = coxph.control(eps = 1e-11, iter.max = 100))
  died <- sort(unique(others$time[others$event == 1]))
  step <- sapply(died, function(t) sum(others$event[others$time == t]) / sum(exp(coef(fit) * others$z)[others$time >= t]))
  hazard <- stepfun(died, c(0, cumsum(step)))(grid)
  cox[d$fold == fold, ] <- exp(-outer(exp(coef(fit) * d$z[d$fold == fold]), hazard))
}
b <- scored(cox, grid)$Brier$score$Brier
say("ibs", "", sum(diff(grid) * (head(b, -1) + tail(b, -1)) / 2) / (tau - grid[1]))

# Uno's c-index until just before tau: of all patients, and by a double loop of pairs within folds.
say("uno_c_index", "", concordance(Surv(time, event) ~ risk, data = d, reverse = TRUE, timewt = "n/G2",
  ymax = tau - 1e-6)$concordance)
left <- sapply(d$time, function(t) sum(d$time > t | (d$time == t & d$event == 0)))  # deaths of a time leave first
g_before <- function(t) {
  at <- sort(unique(d$time[d$event == 0 & d$time < t]))
  prod(vapply(at, function(u) 1 - sum(d$time == u & d$event == 0) / left[match(u, d$time)], 0))
}
agreeing <- pairs <- 0
for (i in which(d$event == 1 & d$time < tau)) for (j in seq_len(nrow(d))) {
  if (d$fold[i] == d$fold[j] && (d$time[i] < d$time[j] || (d$time[i] == d$time[j] && d$event[j] == 0))) {
    weight <- 1 / g_before(d$time[i])^2
    pairs <- pairs + weight
    agreeing <- agreeing + weight * ((d$risk[i] > d$risk[j]) + (d$risk[i] == d$risk[j]) / 2)
  }
}
say("uno_c_index_within_folds", "", agreeing / pairs)
