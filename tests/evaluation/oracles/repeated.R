# Patients whom several folds hold out, each counted once: groups by the mean distance of the risk from the fold's
# median in standard deviations; log-rank test, medians and Cox regression of what is left.
suppressMessages(library(survival))
here <- commandArgs(TRUE)[1]
d <- read.csv(file.path(here, "repeated.csv"))
sd_n <- function(v) sqrt(mean((v - mean(v))^2))
d$above <- ave(d$risk, d$fold, FUN = function(v) (v - median(v)) / sd_n(v))
d$z <- ave(d$risk, d$fold, FUN = function(v) (v - mean(v)) / sd_n(v))
once <- aggregate(cbind(time, event, above, z) ~ patient_id, data = d, FUN = mean)
once$high <- once$above > 0
say <- function(number, at, value) cat(sprintf("%s,%s,%.17g\n", number, at, value), sep = "")
cat("number,at,value\n")
test <- survdiff(Surv(time, event) ~ high, data = once)
say("logrank_p", "", pchisq(test$chisq, 1, lower.tail = FALSE))
for (high in c(FALSE, TRUE)) {
  group <- once[once$high == high, ]
  name <- if (high) "high risk" else "low risk"
  say("n", name, nrow(group))
  say("n_events", name, sum(group$event))
  say("median", name, summary(survfit(Surv(time, event) ~ 1, data = group))$table["median"])
  for (t in c(0, 10, 20, 40)) say(paste0("at_risk_", t), name, sum(group$time >= t))
}
fit <- coxph(Surv(time, event) ~ z, data = once, ties = "efron", control = coxph.control(eps = 1e-11, iter.max = 100))
say("hazard_ratio", "", exp(coef(fit)))
say("ph_p", "", cox.zph(fit, transform = "rank")$table[1, 3])
